"""The keys of a recipe for a new token."""

from __future__ import annotations

from ldmkit_checkpoints.embeddings import EmbeddingLayout
from pydantic import Field

from ldmkit import Value
from ldmkit_training.stages.started import StartedConfig


class TokenSection(Value):
    """A new token.

    Args:
        word: what stands for it in texts, such as `<cat>`.
        vectors: how many it has; each takes the place of a token in a prompt.
        init: a word of the model that it starts as, of at most so many tokens; null: noise of the table's size.
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
