"""What the contract kit checks of codecs."""
