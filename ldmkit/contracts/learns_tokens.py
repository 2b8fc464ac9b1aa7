"""The ability of a conditioner to learn words: tokens that stand for vectors of their own (textual inversion)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.errors import CompositionError


class LearnsTokens(Conditioner, ABC):
    """Reads texts through a table with one vector a token, to which rows can be added (arXiv:2208.01618)."""

    token_key: str = ""
    """The key of its vectors in files for several text encoders, `clip_l` or `clip_g`; "": not known."""

    @property
    @abstractmethod
    def token_width(self) -> int:
        """Width of the vectors."""

    @property
    @abstractmethod
    def token_room(self) -> int:
        """How many vectors one prompt can have."""

    @property
    def token_table(self) -> nn.Embedding | None:
        """The table of vectors, of which a stage trains the rows of a new token; None: they cannot be trained."""
        return None

    def token_ids(self, text: str) -> list[int]:
        """The rows of the table that a text is read by, without those of start and end.

        Raises:
            InputError: `no-vocabulary`.
            CompositionError: `not-trainable`, unless overridden; a class with a `token_table` overrides it.
        """
        raise CompositionError("not-trainable", f"{type(self).__name__} does not say how it reads a text")

    @abstractmethod
    def learn_token(self, token: str, vectors: Tensor) -> None:
        """From now on, `token` in a text stands for the vectors (n, token_width); other texts mean what they did.

        It is called on a copy that shares tensors with other conditioners: replace the table, never write to it. One
        that shares another's table (`SharesWeights`) is called after that one, and adapts what it says of it.

        Raises:
            InputError: `token`, `token-taken`: no word, or one with a meaning; `no-vocabulary`.
        """
