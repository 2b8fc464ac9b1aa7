"""The contract kit's checks of conditioners."""
