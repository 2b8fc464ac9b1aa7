"""What the contract kit checks of adapters."""
