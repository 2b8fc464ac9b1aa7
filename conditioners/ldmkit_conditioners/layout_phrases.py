"""Layouts as phrases in boxes: the pooled text embedding of each phrase beside the code of its box, as GLIGEN reads
them (arXiv:2301.07093, section 4.1)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Example, InputError, Signal, SignalKind, Tokens, shown
from ldmkit.bounds import Length
from ldmkit.contracts.value import parse
from ldmkit_conditioners.clip_text import ClipPooled
from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_conditioners.layout import Box, Layout, check_plain
from ldmkit_conditioners.prompted import Prompted
from ldmkit_conditioners.prompts import Prompt, padded_rows
from ldmkit_conditioners.vocabulary import no_vocabulary

_TINY = {"vocab_size": 50, "width": 16, "layers": 2, "heads": 2, "mlp": 32, "positions": 9}
_TINY |= {"bos": 47, "eos": 48, "pad": 48}
_BOX = {"label": "", "box": [0.1, 0.2, 0.5, 0.9]}  # without a vocabulary no other phrase can be read


class LayoutPhrasesConfig(ClipConfig):
    """A CLIP tower, and the code of boxes.

    Args:
        frequencies: of the box code: sin and cos of 100^(k / frequencies) times each coordinate.
        max_objects: maximum number of boxes; more are refused.
    """

    frequencies: int = Field(default=8, gt=0, le=16)
    max_objects: Length = 30


class LayoutPhrases(ClipPooled):
    """Boxes, whose labels are phrases, as tokens (B, max_objects, width + 8 * frequencies + 1).

    A token is the phrase's final state at the end token, not projected, the code of the box's corners, and 1; tokens
    of zeros are no objects, so the null is a layout without any. `adopt` makes it read another conditioner's tower and
    vocabulary.
    """

    Config: ClassVar[type[LayoutPhrasesConfig]] = LayoutPhrasesConfig
    config: LayoutPhrasesConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(_TINY, ([_BOX], [], [_BOX, {**_BOX, "box": [0.5, 0, 1, 0.5]}])),
        Example({**_TINY, "frequencies": 3, "projection": 12}, ([_BOX], []), trained=False),  # it is not projected
    )
    Input: ClassVar[Any] = Layout
    kind: SignalKind = "tokens"

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = self.config.width + 8 * self.config.frequencies + 1

    def parse(self, raw: Any, where: str) -> Layout:
        layout = Layout.read(raw, where)
        self._check(layout, where)
        return layout

    def example(self, size: tuple[int, int]) -> Any:
        return Layout()

    @classmethod
    def from_text(cls, text: str) -> Any:
        """JSON, or the path of a .json file."""
        return super(Prompted, cls).from_text(text)

    def forward(self, inputs: list[Any]) -> Tokens:
        for layout in inputs:
            self._check(layout, "layout")
        boxes = [box for layout in inputs for box in layout.objects]
        counts = torch.tensor([len(layout.objects) for layout in inputs], device=self.device)
        real = torch.arange(self.config.max_objects, device=self.device) < counts[:, None]
        value = torch.zeros(*real.shape, self.dim, device=self.device, dtype=self.weights.norm.weight.dtype)
        return Tokens(value.masked_scatter(real[..., None], self._objects(boxes)) if boxes else value)

    def null(self, like: Signal) -> Tokens:
        assert isinstance(like, Tokens)
        return Tokens(torch.zeros_like(like.value))

    def _objects(self, boxes: list[Box]) -> Tensor:
        """(N, dim) of all boxes; a phrase that occurs several times is encoded once."""
        phrases = list(dict.fromkeys(str(box.label) for box in boxes))
        rows = [self.row(phrase) for phrase in phrases]
        ids = padded_rows(rows, max(map(len, rows)), self.config.pad, self.device)
        states = self.weights.at_end(ids, self.frame)
        places = torch.tensor([phrases.index(str(box.label)) for box in boxes], device=self.device)
        corners = torch.tensor([box.rect.corners for box in boxes], dtype=torch.float64).clamp(0, 1)
        code = box_code(corners, self.config.frequencies).to(self.device, states.dtype)
        return torch.cat([states[places], code, torch.ones_like(code[:, :1])], dim=1)

    def _check(self, layout: Layout, where: str) -> None:
        """Raises InputError: a crop, too many boxes, a label that is not text, attributes (never read)."""
        check_plain(layout, self.config.max_objects, where)
        for i, box in enumerate(layout.objects):
            place = f"{where}[{i}]"
            if not isinstance(box.label, str):
                what = f"{shown(box.label)} is not a phrase"
                raise InputError("phrase-type", what, where=f"{place}.label", fits="words, such as 'a red ball'")
            if parse(Prompt, box.label, f"{place}.label") and self.vocabulary is None:
                raise no_vocabulary(type(self).__name__, self.files, f"{place}.label")
            marked = [name for name in ("group_of", "occluded", "depiction", "inside") if getattr(box, name)]
            if marked:
                what = f"this model does not read attributes of boxes, so {', '.join(marked)} would be ignored"
                raise InputError("box-attributes", what, where=place, fits="the phrase, such as 'a group of cats'")


def box_code(corners: Tensor, frequencies: int) -> Tensor:
    """(N, 4) in [0, 1] -> (N, 8 * frequencies): for each frequency the four sines, then the four cosines."""
    # the published networks were trained with frequencies rounded to float32
    rates = (100 ** (torch.arange(frequencies) / frequencies)).to(corners)
    angles = corners[:, None] * rates[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
