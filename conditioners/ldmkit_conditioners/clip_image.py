"""CLIP image: pictures as the tokens of a CLIP vision encoder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from ldmkit import Conditioner, Example, Signal, SignalKind, Tokens, cat_rows, rows_of
from ldmkit_conditioners.vision_pictures import Pictures, Preprocessing
from ldmkit_conditioners.vision_tower import VisionConfig, VisionTower


class ClipImageConfig(VisionConfig):
    """A tower, and what of it the tokens are.

    Args:
        layer: `projected`: the projected class token, one token a picture; `penultimate`, `last`: the hidden states
            before or after the last block, without the final norm.
        pictures: how they are made ready; their size at the end is the tower's `edge`.
    """

    layer: Literal["projected", "penultimate", "last"] = "projected"
    pictures: Preprocessing = Preprocessing()

    @model_validator(mode="after")
    def _reads_pictures(self) -> ClipImageConfig:
        made = self.pictures.crop or self.pictures.resize
        if made != (self.edge, self.edge):
            size = "no set size" if made is None else f"{made[0]} x {made[1]}"
            raise ValueError(f"pictures come out with {size}, the tower reads {self.edge} x {self.edge}")
        return self

    @property
    def length(self) -> int:
        """Tokens of a picture."""
        return 1 if self.layer == "projected" else self.tokens

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return int(self.projection if self.layer == "projected" else self.width)


_TINY: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "mlp": 32, "projection": 12, "edge": 8, "patch": 4}
_TINY |= {"pictures": {"shortest": 8, "crop": (8, 8)}}


def _examples() -> tuple[Any, ...]:
    made = torch.linspace(-1, 1, 3 * 10 * 12).view(3, 10, 12)
    return (made, [made * -0.5, made.flip(0)], made.roll(1, 0))


class ClipImage(Conditioner):
    """A picture, or several, as tokens (B, pictures x length, dim), one picture after the other.

    Rows of a batch may have different numbers of pictures; a mask says where there are none. The null is that of
    IP-Adapters: zeros of projected embeddings, and of hidden states the encoding of pictures that are zero everywhere
    after normalisation.
    """

    Config: ClassVar[type[ClipImageConfig]] = ClipImageConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(_TINY, _examples(), trained=False),
        Example({**_TINY, "layer": "penultimate", "activation": "quick_gelu"}, _examples(), trained=False),
    )
    Input: ClassVar[Any] = Pictures
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.dim
        self.tower = VisionTower(self.config)

    @classmethod
    def from_text(cls, text: str) -> Any:
        """A path or a data URI, or a JSON list of them."""
        return super().from_text(text) if text.lstrip().startswith("[") else text

    def parse(self, raw: Any, where: str) -> tuple[Tensor, ...]:
        pictures: tuple[Tensor, ...] = super().parse(raw, where)
        for i, picture in enumerate(pictures):
            self.config.pictures.resized(picture.shape[1], picture.shape[2], f"{where}[{i}]")
        return pictures

    def forward(self, inputs: list[tuple[Tensor, ...]]) -> Tokens:
        pixels = torch.stack([self.config.pictures(picture) for row in inputs for picture in row])
        found = iter(self._encoded(pixels.to(self.tower.patches.weight)))
        rows: list[Signal] = [Tokens(torch.cat([next(found) for _ in row])[None]) for row in inputs]
        return cat_rows(rows)  # type: ignore[return-value]

    def null(self, like: Signal) -> Tokens:
        assert isinstance(like, Tokens)
        if self.config.layer == "projected":
            return Tokens(torch.zeros_like(like.value), like.mask)
        edge, count = self.config.edge, like.value.shape[1] // self.config.length
        black = self._encoded(self.tower.patches.weight.new_zeros(1, 3, edge, edge))
        return Tokens(black.repeat(rows_of(like), count, 1).to(like.value), like.mask)

    def example(self, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return (torch.zeros(3, self.config.edge, self.config.edge),)

    def _encoded(self, pixels: Tensor) -> Tensor:
        """(N, 3, edge, edge) -> (N, length, dim)."""
        if self.config.layer == "projected":
            return self.tower.projected(pixels)[:, None]
        last = self.config.layer == "last"
        return self.tower(pixels, None if last else self.config.layers - 1)  # type: ignore[no-any-return]
