"""Bounds of what a recipe may ask for."""

MOST_STEPS = 10**12
"""Optimiser steps of a run."""
