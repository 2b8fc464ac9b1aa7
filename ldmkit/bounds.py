"""Upper bounds of numbers in calls and in module configs.

Those of configs are far above anything published (T5 11B: 24 layers, 128 heads, a feed-forward of 65536; umT5: 256384
tokens; SDXL: 70 transformer blocks), but low enough that a wrong number is an immediate error, not an endless build.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

MAX_NUMBER = 2**31 - 1
"""Hard limit of step counts and side lengths."""

MAX_STEPS = 10_000
"""Steps per run, ten times the timesteps of any published model; can be exceeded with explicit confirmation."""

MAX_SIDE = 16_384
"""Side length in pixels of the pictures that a model is configured for."""

MAX_PIXELS = 2**26
"""Pixels of a generated picture (can be exceeded with explicit confirmation) or of a decoded file (8192 x 8192)."""

MAX_BATCH = 4096
"""Pictures per call; can be exceeded with explicit confirmation."""

MAX_DAYS = 30
"""Estimated duration of a call; can be exceeded with explicit confirmation."""

MAX_SCALE = 1e6
"""Guidance scale, far above the usual 1 to 30; a larger one is a mistake and would overflow float32."""

Scale: TypeAlias = Annotated[float, Field(ge=0, le=MAX_SCALE)]
"""A guidance scale, in specs and in calls."""

SignedScale: TypeAlias = Annotated[float, Field(ge=-MAX_SCALE, le=MAX_SCALE)]
"""The scale of a gradient; a negative one guides away."""

MAX_WIDTH = 2**18
MAX_LAYERS = 512
MAX_HEADS = 4096
MAX_LEVELS = 12

Width: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
"""Channels, or features per token."""

Layers: TypeAlias = Annotated[int, Field(ge=1, le=MAX_LAYERS)]
"""Consecutive blocks."""

Heads: TypeAlias = Annotated[int, Field(ge=1, le=MAX_HEADS)]

Length: TypeAlias = Annotated[int, Field(ge=1, le=2**17)]
"""Sequence length: tokens or positions."""

Rows: TypeAlias = Annotated[int, Field(ge=1, le=2**24)]
"""Rows of an embedding table: tokens of a vocabulary, classes, codebook entries."""
