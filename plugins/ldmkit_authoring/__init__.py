"""Scaffolds for new parts, behind `ldmkit new`."""
