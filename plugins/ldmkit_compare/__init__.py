"""Samplers of one model compared: errors against a tight run, pictures side by side, time."""
