"""What the contract kit checks of guidance."""
