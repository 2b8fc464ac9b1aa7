"""What the contract kit checks of conditioners."""
