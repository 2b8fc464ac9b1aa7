"""Bounds of the numbers in configs that modules are built from.

They lie far above anything published (T5 11B: 24 layers, 128 heads, a feed-forward of 65536; umT5: 256384 tokens;
SDXL: 70 transformer blocks), and low enough that a wrong number is an error at once, not a build without end.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

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
