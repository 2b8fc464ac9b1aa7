"""Writing parts of one's own: the scaffold behind `ldmkit new`."""
