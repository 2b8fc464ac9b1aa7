"""Bounds of numbers: of work that one call may do, and of the configs that modules are built from.

The latter lie far above anything published (T5 11B: 24 layers, 128 heads, a feed-forward of 65536; umT5: 256384 tokens;
SDXL: 70 transformer blocks), and low enough that a wrong number is an error at once, not a build without end.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

MAX_NUMBER = 2**31 - 1
"""Of steps and pixels that can be asked for at all."""

MAX_STEPS = 10_000
"""Of a run, ten times those that any published model was trained with; more where the caller says that it is meant."""

MAX_SIDE = 16_384
"""Of the pictures that a model is made for, in pixels."""

MAX_PIXELS = 2**26
"""Of a picture that is drawn, and likewise, or decoded from a file (8192 x 8192)."""

MAX_BATCH = 4096
"""Pictures in one call, and likewise."""

MAX_DAYS = 30
"""That a call takes by the estimate, and likewise."""

MAX_SCALE = 1e6
"""Of guidance; far above any in use (1 to 30): what lies beyond is an accident, and overflows float32 on its way."""

Scale: TypeAlias = Annotated[float, Field(ge=0, le=MAX_SCALE)]
"""Of guidance, in specs as in calls."""

SignedScale: TypeAlias = Annotated[float, Field(ge=-MAX_SCALE, le=MAX_SCALE)]
"""Of a gradient: below 0 it leads away."""

MAX_WIDTH = 2**18
MAX_LAYERS = 512
MAX_HEADS = 4096
MAX_LEVELS = 12

Width: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
"""Channels, features a token."""

Layers: TypeAlias = Annotated[int, Field(ge=1, le=MAX_LAYERS)]
"""Blocks, one after the other."""

Heads: TypeAlias = Annotated[int, Field(ge=1, le=MAX_HEADS)]

Length: TypeAlias = Annotated[int, Field(ge=1, le=2**17)]
"""Tokens in a sequence, positions."""

Rows: TypeAlias = Annotated[int, Field(ge=1, le=2**24)]
"""Of a table: tokens of a vocabulary, classes, codebook entries."""
