"""See the README: every part here is found through the entry points in pyproject.toml."""
