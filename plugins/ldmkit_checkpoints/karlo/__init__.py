"""Karlo's original files: the prior and its statistics."""
