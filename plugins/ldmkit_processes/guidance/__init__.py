"""Guidance: which views of the conditioning are evaluated, and how they combine."""
