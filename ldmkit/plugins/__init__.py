"""Plugins: the catalogue of installed parts, their admission and loading. Does not import torch until needed."""
