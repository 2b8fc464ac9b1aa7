"""The paper's own text transformer over BERT word pieces (arXiv:2112.10752, section 4.3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from ldmkit import Example, LearnsTokens, Ported, Signal, SignalKind, SourceError, Tokens, Value, linear_ports, rows_of
from ldmkit.bounds import Heads, Layers, Length, Rows, Width
from ldmkit_conditioners.bpe import BERT_FILES, bert_vocabulary
from ldmkit_conditioners.prompted import Prompted
from ldmkit_conditioners.token_table import with_rows
from ldmkit_conditioners.transformer import Encoder
from ldmkit_conditioners.vocabulary import Vocabulary, no_vocabulary


class LdmTextConfig(Value):
    """The defaults are the 1.45 B text-to-image model's.

    Args:
        words: False for models without a tokenizer, whose only input is ids.
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


class LdmText(Prompted, Ported, LearnsTokens):
    """A prompt as tokens (B, max_length, dim); padding is attended, there is no mask.

    The null is the encoding of the empty prompt (without words, of padding only).
    Ports: `linear.encoder.<path>`.
    """

    Config: ClassVar[type[LdmTextConfig]] = LdmTextConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {
                "vocab_size": 50,
                "dim": 16,
                "layers": 2,
                "heads": 2,
                "head_dim": 4,
                "max_length": 7,
                "start": 1,
                "end": 2,
            },
            ([1, 5, 2], "", [1, 9, 8, 2]),
        ),
    )
    files: ClassVar[str] = BERT_FILES
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        c = self.config
        self.dim = c.dim
        self.encoder = Encoder(c.vocab_size, c.dim, c.layers, c.heads, c.head_dim, c.max_length)
        self.ports = linear_ports(self)

    @property
    def length(self) -> int:
        return int(self.config.max_length)

    @property
    def token_width(self) -> int:
        return int(self.config.dim)

    @property
    def token_room(self) -> int:
        return self.length - 2

    @property
    def token_table(self) -> nn.Embedding:
        return self.encoder.tokens

    def learn_token(self, token: str, vectors: Tensor) -> None:
        if self.vocabulary is None:
            raise no_vocabulary(type(self).__name__, self.files)
        self._vocabulary, ids = self.vocabulary.with_token(token, len(vectors))
        self.encoder.tokens = with_rows(self.encoder.tokens, ids, vectors)
        self.config = self.config.model_copy(update={"vocab_size": len(self.encoder.tokens.weight)})

    @property
    def empty(self) -> list[int]:
        return [self.config.start, self.config.end] if self.config.words else []

    def find_vocabulary(self, folder: Path) -> Vocabulary | None:
        c = self.config
        vocabulary = bert_vocabulary(folder, c.vocab_size) if c.words else None
        if vocabulary is not None:
            theirs = self.special_tokens(vocabulary)
            if wrong := {name: id_ for name, id_ in theirs.items() if id_ != getattr(c, name)}:
                what = f"the ids of its [CLS], [SEP] and [PAD] differ from the config's: {wrong}"
                fits = "config with " + ", ".join(f"{name}: {id_}" for name, id_ in theirs.items())
                raise SourceError("bad-vocabulary", what, where=str(folder), fits=fits)
        return vocabulary

    @staticmethod
    def special_tokens(vocabulary: Vocabulary) -> dict[str, int]:
        """The fields `start`, `end` and `pad` of the config that a vocabulary of word pieces needs."""
        ids = {"start": vocabulary.start, "end": vocabulary.end, "pad": vocabulary.tokenizer.token_to_id("[PAD]")}
        return {name: id_ for name, id_ in ids.items() if id_ is not None}

    def forward(self, inputs: list[str | list[int]]) -> Tokens:
        return Tokens(self.encoder(self.ids(inputs), self.frame))

    def null(self, like: Signal) -> Tokens:
        return Tokens(self([""]).value.expand(rows_of(like), -1, -1))
