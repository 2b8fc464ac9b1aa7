"""Training proposers: the parts of conditioners that make up an input the caller left out."""
