"""The contract of rewriters, which make another prompt of a prompt before a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value


class Rewriter(Value, ABC):
    """Rewrites a prompt. It holds options and draws nothing; a network that it reads is loaded at the first prompt.

    One thing is required: `rewrite`.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that name files or folders of weights, or None; recipes hold their SHA-256."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # as `Part` has it

    @abstractmethod
    def rewrite(self, prompt: str) -> str:
        """The prompt to draw instead: a text with words in it. The same prompt gives the same text.

        Raises:
            InputError: a prompt that it cannot rewrite, such as an empty one.
        """
