"""The contract kit's checks of adapters."""
