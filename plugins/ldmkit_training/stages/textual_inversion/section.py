"""The keys of a recipe for a new token."""

from __future__ import annotations

from ldmkit_checkpoints.embeddings import EmbeddingLayout
from pydantic import Field

from ldmkit import Value
from ldmkit_training.stages.started import StartedConfig


class TokenSection(Value):
    """A new token.

    Args:
        word: how it is written in texts, for example `<cat>`.
        vectors: number of its vectors; each takes up one token in a prompt.
        init: a known word, of at most `vectors` tokens, to initialise it from; null: noise of the table's magnitude.
        layout: of the file: keys as diffusers writes them, or as A1111 and kohya's scripts do.
    """

    word: str = Field(min_length=1)
    vectors: int = Field(default=1, ge=1, le=64)
    init: str | None = Field(default=None, min_length=1)
    layout: EmbeddingLayout = "diffusers"


class TextualInversionConfig(StartedConfig):
    """A new token of a pipeline's text encoders.

    Args:
        token: the token.
    """

    token: TokenSection
