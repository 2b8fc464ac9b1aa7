"""Frozen T5 encoders (arXiv:1910.10683), as Imagen reads text. transformers is imported when one is built."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import DrawingWarning, Example, Signal, SignalKind, SourceError, Tokens, Value, rows_of
from ldmkit.bounds import Heads, Layers, Length, Rows, Width
from ldmkit_conditioners.bpe import sentence_pieces
from ldmkit_conditioners.prompted import Prompted
from ldmkit_conditioners.vocabulary import Vocabulary

T5_FILES = "tokenizer.json, or spiece.model with the sentencepiece package installed"


class T5TextConfig(Value):
    """The defaults are T5 v1.1 XXL's, with 77 tokens as DeepFloyd IF reads them.

    Args:
        lower: texts are read in lower case, without space at their ends (DeepFloyd IF).
        masked: padding is left out, by the encoder and by what reads the tokens; "inside": by the encoder alone.
    """

    vocab_size: Rows = 32128
    dim: Width = 4096
    head_dim: Width = 64
    mlp: Width = 10240
    layers: Layers = 24
    heads: Heads = 64
    feed_forward: Literal["relu", "gated-gelu"] = "gated-gelu"
    buckets: Length = 32
    max_distance: Length = 128
    max_length: Length = Field(default=77, gt=1)
    end: int = Field(default=1, ge=0)
    pad: int = Field(default=0, ge=0)
    masked: bool | Literal["inside"] = True
    lower: bool = False


class T5Text(Prompted):
    """A prompt as tokens (B, max_length, dim) with a mask that leaves the padding out.

    The null is the encoding of the empty prompt.
    """

    Config: ClassVar[type[T5TextConfig]] = T5TextConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"vocab_size": 50, "dim": 16, "head_dim": 4, "mlp": 24, "layers": 1, "heads": 2, "max_length": 9},
            ([3, 1], "", [4, 5, 1]),
        ),
    )
    files: ClassVar[str] = T5_FILES
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.dim
        self.encoder = _build(self.config)
        self._warned = False

    @property
    def length(self) -> int:
        return int(self.config.max_length)

    @property
    def empty(self) -> list[int]:
        return [self.config.end]

    def token_ids(self, text: str) -> list[int]:
        """See `Prompted.token_ids`."""
        return super().token_ids(self._read(text))

    def row(self, prompt: str | list[int]) -> list[int]:
        """See `Prompted.row`."""
        return super().row(self._read(prompt) if isinstance(prompt, str) else prompt)

    def _read(self, text: str) -> str:
        return text.lower().strip() if self.config.lower else text

    def find_vocabulary(self, folder: Path) -> Vocabulary | None:
        return sentence_pieces(folder, self.config.vocab_size, self.config.end)

    def forward(self, inputs: list[str | list[int]]) -> Tokens:
        lengths = torch.tensor([len(self.row(prompt)) for prompt in inputs])
        ids = self.ids(inputs)
        mask = (torch.arange(self.length) < lengths[:, None]).to(ids.device) if self.config.masked else None
        if self.dtype is torch.float16 and not self._warned:
            self._warned = True
            what = "T5 in float16 overflows, and its tokens are then wrong: load it in bfloat16, or keep it in float32"
            warnings.warn(what, DrawingWarning, stacklevel=2)
        state: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return Tokens(state, mask if self.config.masked is True else None)

    def null(self, like: Signal) -> Tokens:
        value, mask = self([""])
        rows = rows_of(like)
        return Tokens(value.expand(rows, -1, -1), None if mask is None else mask.expand(rows, -1))


def _build(config: T5TextConfig) -> Any:
    try:
        from transformers import T5Config, T5EncoderModel
    except ImportError as failure:
        raise SourceError("missing-package", f"T5 needs transformers: {failure}", where="t5-text") from None
    shape = T5Config(
        vocab_size=config.vocab_size,
        d_model=config.dim,
        d_kv=config.head_dim,
        d_ff=config.mlp,
        num_layers=config.layers,
        num_heads=config.heads,
        feed_forward_proj=config.feed_forward,
        relative_attention_num_buckets=config.buckets,
        relative_attention_max_distance=config.max_distance,
        dropout_rate=0.0,
        use_cache=False,
    )
    return T5EncoderModel(shape).encoder
