"""What the contract kit checks of denoisers."""
