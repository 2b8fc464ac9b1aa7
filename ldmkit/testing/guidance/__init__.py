"""The contract kit's checks of guidance."""
