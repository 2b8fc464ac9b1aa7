"""CLIP text: the hidden states of a prompt (`ClipText`), and its pooled, projected vector (`ClipPooled`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ldmkit import (
    CompositionError,
    Conditioner,
    Example,
    InputError,
    LearnsTokens,
    Ported,
    SharesWeights,
    Signal,
    SignalKind,
    SourceError,
    Tokens,
    Vector,
    cat_rows,
    linear_ports,
    rows_of,
)
from ldmkit_conditioners.bpe import CLIP_FILES, clip_vocabulary
from ldmkit_conditioners.clip_tower import ClipConfig, ClipTower
from ldmkit_conditioners.prompted import Prompted
from ldmkit_conditioners.prompts import padded_rows
from ldmkit_conditioners.vocabulary import Vocabulary, no_vocabulary
from ldmkit_conditioners.written import AnyPrompt, Chunk, WrittenPrompt, chunks_of, cut, emphasised

_TINY = {"vocab_size": 50, "width": 16, "layers": 2, "heads": 2, "mlp": 32, "positions": 9}
_TINY |= {"bos": 47, "eos": 48, "pad": 48}
_FIELDS = re.compile(r'\{\s*"text"\s*:')
_IDS = ([47, 3, 48], "", [47, 9, 8, 7, 48])


class ClipPart(Prompted, Ported, LearnsTokens):
    """What both have: a tower, and rows of ids: start, text, end, padding. Ports: `linear.tower.<path>`."""

    Config: ClassVar[type[ClipConfig]] = ClipConfig
    Input: ClassVar[Any] = AnyPrompt
    files: ClassVar[str] = CLIP_FILES
    beyond: ClassVar[str] = '--long, {"text": ..., "long": true}'

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.tower: ClipTower | None = ClipTower(self.config)
        self.ports = linear_ports(self)

    @property
    def weights(self) -> ClipTower:
        """The tower in use."""
        assert self.tower is not None
        return self.tower

    @property
    def device(self) -> torch.device:
        return self.weights.tokens.weight.device if self.placed is None else self.placed.device

    @property
    def length(self) -> int:
        return int(self.config.max_length or self.config.positions)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """The text itself; `[1, 2, 3]` is a list of token ids, `{"text": ...}` the fields of a `WrittenPrompt`."""
        return super(Prompted, cls).from_text(text) if _FIELDS.match(text) else super().from_text(text)

    def parse(self, raw: Any, where: str) -> Any:
        if not isinstance(raw, Mapping | WrittenPrompt):
            return super().parse(raw, where)
        prompt = WrittenPrompt.of(raw if isinstance(raw, WrittenPrompt) else dict(raw), where)
        super().parse(prompt.text, f"{where}.text")
        try:
            self._split(prompt)
        except InputError as error:
            error.where = f"{where}.text"
            raise
        return prompt

    def chunks(self, prompt: Any) -> list[Chunk]:
        """The rows of a prompt, start and end included, padding not; a weight for each id.

        A `TruncationWarning` says what was cut.

        Raises:
            InputError: as `row`, and those of a `WrittenPrompt`'s syntax.
        """
        found = self._split(prompt) if isinstance(prompt, WrittenPrompt) else None
        if found is None:
            row = super().row(prompt.text if isinstance(prompt, WrittenPrompt) else prompt)
            return [Chunk(row, [1.0] * len(row))]
        start, end = self.empty
        found = found if prompt.is_long else cut(found, self.length - 2)
        return [Chunk([start, *chunk.ids, end], [1.0, *chunk.weights, 1.0]) for chunk in found]

    def _split(self, prompt: WrittenPrompt) -> list[Chunk] | None:
        """The chunks of a prompt, without start and end; None: it is one row, as a text without options is."""
        fragments = prompt.fragments()
        if fragments is None or self.vocabulary is None:
            return None
        return chunks_of(fragments, self.vocabulary, self.length - 2)

    def row(self, prompt: Any) -> list[int]:
        return self.chunks(prompt)[0].ids

    @property
    def token_key(self) -> str:  # type: ignore[override]
        return "clip_l" if self.config.projection is None else "clip_g"

    @property
    def token_width(self) -> int:
        return int(self.config.width)

    @property
    def token_room(self) -> int:
        return self.length - 2

    @property
    def token_table(self) -> nn.Embedding:
        return self.weights.tokens

    def learn_token(self, token: str, vectors: Tensor) -> None:
        if self.vocabulary is None:
            raise no_vocabulary(type(self).__name__, self.files)
        self._vocabulary, ids = self.vocabulary.with_token(token, len(vectors))
        self.weights.learn(ids, vectors)
        self._grown_to(self.weights)

    def _grown_to(self, tower: ClipTower) -> None:
        self.config = self.config.model_copy(update={"vocab_size": tower.config.vocab_size})

    @property
    def empty(self) -> list[int]:
        return [self.config.bos, self.config.eos]

    def find_vocabulary(self, folder: Path) -> Vocabulary | None:
        c = self.config
        found = clip_vocabulary(folder, c.vocab_size)
        if found is not None and (found.start, found.end) != (c.bos, c.eos):
            what = f"its start and end tokens have the ids {found.start} and {found.end}"
            raise SourceError("bad-vocabulary", what, where=str(folder), fits=f"{c.bos} and {c.eos}, as in the config")
        return found


class ClipTextConfig(ClipConfig):
    """A tower, and which of its states the tokens are.

    Args:
        layer: `last`, `penultimate`, or an index into the hidden states as transformers counts them: 0 the
            embeddings, k the output of block k, -1 the last.
        final_norm: apply the final LayerNorm to it (SD 1 and 2: yes; SDXL: no).
        masked: the tokens have a mask that leaves the padding out (unCLIP's prior and decoder).
    """

    layer: Literal["last", "penultimate"] | int = "last"
    final_norm: bool = True
    masked: bool = False

    @model_validator(mode="after")
    def _layer_exists(self) -> ClipTextConfig:
        if isinstance(self.layer, int) and not -self.layers - 1 <= self.layer <= self.layers:
            raise ValueError(f"layer {self.layer} of {self.layers}")
        return self

    @property
    def blocks(self) -> int:
        """How many blocks are run."""
        if isinstance(self.layer, int):
            return self.layer if self.layer >= 0 else self.layers + 1 + self.layer
        return self.layers - (self.layer == "penultimate")


class ClipText(ClipPart):
    """A prompt as tokens (B, positions, width), padding included: as SD 1, 2 and SDXL read it, without a mask, or with
    one that leaves the padding out.

    The null is the encoding of the empty prompt.
    """

    Config: ClassVar[type[ClipTextConfig]] = ClipTextConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(_TINY, _IDS),
        Example({**_TINY, "layer": "penultimate", "final_norm": False}, _IDS, trained=False),  # a block is not run
        Example({**_TINY, "masked": True}, _IDS),
    )
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.width

    def forward(self, inputs: list[Any]) -> Tokens:
        if any(isinstance(prompt, WrittenPrompt) for prompt in inputs):
            written = cat_rows([self._written(prompt) for prompt in inputs])
            assert isinstance(written, Tokens)
            return written
        rows = [self.row(prompt) for prompt in inputs]
        ids = padded_rows(rows, self.length, self.config.pad, self.device)
        return Tokens(self._states(ids, self.config.blocks), self._mask(rows) if self.config.masked else None)

    def parse(self, raw: Any, where: str) -> Any:
        prompt = super().parse(raw, where)
        if isinstance(prompt, WrittenPrompt):
            self._blocks(prompt, where)
        return prompt

    def _mask(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """(B, length) bool, True where a row has an id of its own."""
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        return torch.arange(self.length, device=self.device) < lengths[:, None]  # type: ignore[no-any-return]

    def _written(self, prompt: Any) -> Tokens:
        """(1, L, width) of one prompt: its chunks one after the other."""
        chunks = self.chunks(prompt)
        ids = padded_rows([chunk.ids for chunk in chunks], self.length, self.config.pad, self.device)
        states = self._states(ids, self._blocks(prompt))
        weights = torch.ones(ids.shape, dtype=torch.float64, device=ids.device)
        for row, chunk in zip(weights, chunks, strict=True):
            row[: len(chunk.weights)] = torch.tensor(chunk.weights, dtype=torch.float64)
        mask = self._mask([chunk.ids for chunk in chunks]).flatten()[None] if self.config.masked else None
        return Tokens(emphasised(states, weights).flatten(0, 1)[None], mask)

    def _states(self, ids: Tensor, blocks: int) -> Tensor:
        state = self.weights(ids, blocks, self.frame)
        return self.weights.norm(state) if self.config.final_norm else state

    def _blocks(self, prompt: Any, where: str | None = None) -> int:
        """How many blocks are run for a prompt.

        Raises:
            InputError: `clip-skip`.
        """
        own = int(self.config.blocks)
        skipped = prompt.clip_skip if isinstance(prompt, WrittenPrompt) else 0
        if skipped > own:
            what = f"{skipped} layers are to be left out, the text encoder runs {own}"
            place = None if where is None else f"{where}.clip_skip"
            raise InputError("clip-skip", what, where=place, fits=f"0 to {own}")
        return own - skipped

    def null(self, like: Signal) -> Tokens:
        value, mask = self([""])
        rows = rows_of(like)
        return Tokens(value.expand(rows, -1, -1), None if mask is None else mask.expand(rows, -1))


class ClipPooled(ClipPart, SharesWeights):
    """A prompt as one vector (B, projection or width): the final state at the end token, projected.

    `adopt` makes it read another conditioner's tower and vocabulary instead of holding its own; the tower's ports are
    that one's then.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({**_TINY, "projection": 12}, _IDS),
        Example({**_TINY, "pool": "argmax"}, _IDS),
    )
    kind: SignalKind = "vector"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.projection or self.config.width
        self._owner: tuple[ClipPart, ...] = ()

    def forward(self, inputs: list[Any]) -> Vector:
        for prompt in inputs:
            self._check_end(prompt, None)
        return Vector(self.weights.pooled(self.ids(inputs), self.frame))

    def null(self, like: Signal) -> Vector:
        return Vector(self([""]).value.expand(rows_of(like), -1))

    def parse(self, raw: Any, where: str) -> Any:
        prompt = self._check_end(super().parse(raw, where), where)
        if isinstance(prompt, WrittenPrompt) and prompt.clip_skip:
            what = "the pooled vector is always that of the last layer"
            raise InputError("clip-skip", what, where=f"{where}.clip_skip", fits="0")
        return prompt

    def _check_end(self, prompt: Any, where: str | None) -> Any:
        ids = prompt.text if isinstance(prompt, WrittenPrompt) else prompt
        if isinstance(ids, list) and self.config.eos not in ids:
            what = f"there is no end token {self.config.eos} to pool at"
            raise InputError("token-end", what, where=where, fits="ids that include the end token")
        return prompt

    def learn_token(self, token: str, vectors: Tensor) -> None:
        if self._owner:
            self._grown_to(self.weights)
        else:
            super().learn_token(token, vectors)

    def adopt(self, other: Conditioner) -> None:
        if not isinstance(other, ClipPart):
            super().adopt(other)
            return
        ours, theirs = (
            ClipConfig(**part.config.model_dump(include=set(ClipConfig.model_fields))) for part in (self, other)
        )
        if ours != theirs:
            differ = [name for name in ClipConfig.model_fields if getattr(ours, name) != getattr(theirs, name)]
            raise CompositionError("cannot-share", f"the towers differ in {', '.join(differ)}")
        self.tower, self.ports = None, {}
        self._owner = (other,)

    @property
    def vocabulary(self) -> Vocabulary | None:
        return self._owner[0].vocabulary if self._owner else self._vocabulary

    @property
    def weights(self) -> ClipTower:
        return self._owner[0].weights if self._owner else super().weights
