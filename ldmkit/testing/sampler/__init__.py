"""What the contract kit checks of samplers."""
