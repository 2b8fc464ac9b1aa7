"""The contract kit's checks of denoisers."""
