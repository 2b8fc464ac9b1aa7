"""The contract kit's checks of codecs."""
