"""Training first stages: the codec's turn, its discriminator's turn, and what is measured."""
