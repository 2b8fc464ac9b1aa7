"""Grids: which sigmas a run visits."""
