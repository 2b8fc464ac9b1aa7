"""Parts of each ability that the contracts gained, from the public surface of ldmkit alone."""
