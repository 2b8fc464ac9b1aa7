"""The paper's own text transformer over BERT word pieces (arXiv:2112.10752, section 4.3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ldmkit.bounds import Heads, Layers, Length, Rows, Width
from ldmkit.contracts import Conditioner
from ldmkit.signals import Signal, SignalKind, Tokens, rows_of
from ldmkit.value import Value
from ldmkit_conditioners.bpe import BERT_FILES, Vocabulary, bert_vocabulary, no_vocabulary
from ldmkit_conditioners.prompts import Prompt, PromptInput, check_ids, padded_rows
from ldmkit_conditioners.transformer import Encoder


class LdmTextConfig(Value):
    """The defaults are the 1.45 B text-to-image model's.

    Args:
        words: False where ids are the only input (a model without a tokenizer).
        start, end, pad: token ids; [CLS], [SEP] and [PAD] of bert-base-uncased.
    """

    vocab_size: Rows = 30522
    dim: Width = 1280
    layers: Layers = 32
    heads: Heads = 8
    head_dim: Width = 64
    max_length: Length = Field(default=77, gt=1)
    words: bool = True
    start: int = Field(default=101, ge=0)
    end: int = Field(default=102, ge=0)
    pad: int = Field(default=0, ge=0)


class LdmText(PromptInput, Conditioner):
    """A prompt as tokens (B, max_length, dim); padding is attended, there is no mask.

    The null is the encoding of the empty prompt (without words: of nothing but padding).
    """

    Config: ClassVar[type[LdmTextConfig]] = LdmTextConfig
    Input: ClassVar[Any] = Prompt
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        c = self.config
        self.dim = c.dim
        self.encoder = Encoder(c.vocab_size, c.dim, c.layers, c.heads, c.head_dim, c.max_length)
        self.vocabulary: Vocabulary | None = None

    def load_assets(self, folder: Path) -> None:
        if self.config.words:
            self.vocabulary = bert_vocabulary(folder, self.config.vocab_size) or self.vocabulary

    def save_assets(self, folder: Path) -> None:
        if self.vocabulary is not None:
            self.vocabulary.save(folder)

    def parse(self, raw: Any, where: str) -> str | list[int]:
        prompt = super().parse(raw, where)
        if isinstance(prompt, list):
            check_ids(prompt, self.config.max_length, self.config.vocab_size, where)
        elif prompt and self.vocabulary is None:
            raise no_vocabulary("LdmText", BERT_FILES)
        return prompt

    def example(self, size: tuple[int, int]) -> str:
        return ""

    def forward(self, inputs: list[str | list[int]]) -> Tokens:
        rows = [self._row(prompt) for prompt in inputs]
        ids = padded_rows(rows, self.config.max_length, self.config.pad, self.encoder.norm.weight.device)
        return Tokens(self.encoder(ids))

    def null(self, like: Signal) -> Tokens:
        return Tokens(self([""]).value.expand(rows_of(like), -1, -1))

    def _row(self, prompt: str | list[int]) -> list[int]:
        config = self.config
        if isinstance(prompt, list):
            check_ids(prompt, config.max_length, config.vocab_size)
            return prompt
        if self.vocabulary is not None:
            return self.vocabulary.encode(prompt, config.max_length)
        if prompt:
            raise no_vocabulary("LdmText", BERT_FILES)
        return [config.start, config.end] if config.words else []
