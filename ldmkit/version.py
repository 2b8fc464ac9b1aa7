"""The version of this distribution, which `pyproject.toml` says too."""

VERSION = "0.1.0"
