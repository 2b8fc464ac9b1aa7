"""The stage `textual-inversion`: the vectors of a new token, and nothing else, are trained and saved."""
