"""Shared by the text conditioners: prompts become rows of token ids, with a vocabulary that may be loaded later."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ldmkit import Conditioner, InputError, path_of
from ldmkit_conditioners.prompts import Prompt, check_ids, padded_rows
from ldmkit_conditioners.vocabulary import Vocabulary, no_vocabulary

_ID_LIST = re.compile(r"\[\s*\d{1,9}(\s*,\s*\d{1,9})*\s*\]")


class Prompted(Conditioner):
    """A text conditioner. Token ids always work; text other than "" needs the vocabulary, which is an asset."""

    Input: ClassVar[Any] = Prompt
    files: ClassVar[str]
    """The files that hold a vocabulary, for the error that says what is missing."""
    beyond: ClassVar[str] = ""
    """What reads the rest of a text that was cut, for the warning that says so."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """None until `load_assets` has found the files: checkpoints carry no vocabulary."""
        return self._vocabulary

    @abstractmethod
    def find_vocabulary(self, folder: Path) -> Vocabulary | None:
        """The vocabulary in a folder, if it holds one."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Ids in a row, padding included."""

    @property
    @abstractmethod
    def empty(self) -> list[int]:
        """The ids of the empty prompt, without padding."""

    def token_ids(self, text: str) -> list[int]:
        """The ids of a text, without start, end and padding.

        Raises:
            InputError: `no-vocabulary`.
        """
        if self.vocabulary is None:
            raise no_vocabulary(type(self).__name__, self.files)
        return [id_ for piece in self.vocabulary.pieces(text) for id_ in piece]

    def load_assets(self, folder: Path) -> None:
        self._vocabulary = self.find_vocabulary(path_of(folder, "folder")) or self._vocabulary

    def save_assets(self, folder: Path) -> None:
        if self._vocabulary is not None:
            self._vocabulary.save(folder)

    def parse(self, raw: Any, where: str) -> str | list[int]:
        prompt: str | list[int] = super().parse(raw, where)
        if isinstance(prompt, list):
            check_ids(prompt, self.length, self.config.vocab_size, where)
        elif prompt and self.vocabulary is None:
            raise no_vocabulary(type(self).__name__, self.files, where)
        return prompt

    def example(self, size: tuple[int, int]) -> str:
        return ""

    @classmethod
    def from_text(cls, text: str) -> Any:
        """The text, unchanged; only `[1, 2, 3]` is read as a list of token ids."""
        return json.loads(text) if _ID_LIST.fullmatch(text) else text

    def row(self, prompt: str | list[int]) -> list[int]:
        """The ids of a prompt with start and end, without padding.

        Raises:
            InputError: ids that do not fit, text without a vocabulary.
        """
        if isinstance(prompt, list):
            check_ids(prompt, self.length, self.config.vocab_size)
            return prompt
        if not isinstance(prompt, str):
            what = f"{type(self).__name__} reads the same text, but supports no weights, chunks or clip skip"
            raise InputError("prompt-type", what, fits="a text")
        if self.vocabulary is not None:
            return self.vocabulary.encode(prompt, self.length, self.beyond)
        if prompt:
            raise no_vocabulary(type(self).__name__, self.files)
        return self.empty

    def ids(self, prompts: list[str | list[int]]) -> Tensor:
        """(B, length) int64 rows, padded, on the conditioner's device."""
        return padded_rows([self.row(prompt) for prompt in prompts], self.length, self.config.pad, self.device)
