"""Comparison of samplers of a model: errors against a fine reference run, pictures side by side, time."""
