"""The contract kit's checks of samplers."""
