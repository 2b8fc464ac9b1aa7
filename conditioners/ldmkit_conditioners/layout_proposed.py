"""Layouts that a model can propose from a prompt if the caller gave none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import Example, InputError, Proposing, Value, path_of
from ldmkit.bounds import Heads, Layers, Length, Rows, Width
from ldmkit_conditioners.bpe import BERT_FILES, bert_vocabulary
from ldmkit_conditioners.label import class_number
from ldmkit_conditioners.layout import EXAMPLE, Box, Layout
from ldmkit_conditioners.layout_boxes import LayoutBoxes, LayoutBoxesConfig
from ldmkit_conditioners.layout_language import LayoutLanguage
from ldmkit_conditioners.prompts import check_ids, padded_rows
from ldmkit_conditioners.regions import regions
from ldmkit_conditioners.vocabulary import Vocabulary, no_vocabulary
from ldmkit_conditioners.written import as_plain


class ProposerConfig(Value):
    """
    Args:
        reads: names of the inputs from which layouts are proposed: a run uses the first one that is given, training all
            of them.
        classes: the word for each class, if an input is a class given by number.
        yields_to: inputs with which nothing is proposed, since they already say what is where; does not include a map
            that is read.
        maps: name of an input that shows where things are; if it is given, a text names the things in it.
        map_names: names of the map's labels, in order. Things are those that name a class of boxes or its last word
            ("house" for "red house"). Empty: maps are not read.
        temperature: sampling temperature; below 1, layouts are more typical and less diverse.
        bins: steps of a coordinate over the picture.
        length: maximum number of token ids of a prompt, including start and end; longer prompts are truncated, with the
            text conditioner's warning.
        pad: id of the padding token.
    """

    reads: tuple[str, ...] = Field(default=("text",), min_length=1)
    classes: tuple[str, ...] = ()
    yields_to: tuple[str, ...] = ("semantic",)
    maps: str = "semantic"
    map_names: tuple[str, ...] = ()
    temperature: float = Field(default=0.7, gt=0)
    bins: int = Field(default=64, ge=2, le=1024)
    vocab_size: Rows = 30522
    length: Length = Field(default=77, gt=1)
    pad: int = Field(default=0, ge=0)
    width: Width = 128
    layers: Layers = 3
    heads: Heads = 4

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.pad >= self.vocab_size:
            raise ValueError(f"token id {self.pad} (pad) is not in a vocabulary of {self.vocab_size}")
        return self


class LayoutProposedConfig(LayoutBoxesConfig):
    """
    Args:
        proposer: config of the network that proposes layouts.
    """

    max_objects: Length = 16
    proposer: ProposerConfig = ProposerConfig()


class LayoutProposed(LayoutBoxes, Proposing):
    """`layout-boxes` that proposes a layout from the prompt if the caller gave a prompt but no layout.

    Text to layout to picture, as in Hong et al. 2018 (arXiv:1801.05091): a separate small model (`LayoutLanguage`),
    trained with `stage: proposer`, places the objects, and the denoiser draws them. The vocabulary is an asset:
    word pieces, as for `ldm-text`.
    """

    Config: ClassVar[type[LayoutProposedConfig]] = LayoutProposedConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"n_classes": 9, "dim": 16, "proposer": {"vocab_size": 200, "width": 8, "layers": 1, "heads": 2}},
            ([EXAMPLE], [], [EXAMPLE, {**EXAMPLE, "label": 2}, EXAMPLE]),
            trained=False,  # a stage of its own trains what makes layouts up
        ),
    )

    def __init__(self, config: Any = None):
        super().__init__(config)
        c, p = self.config, self.config.proposer
        self.language = LayoutLanguage(
            p.vocab_size, c.n_classes, p.bins, p.length, c.max_objects, p.width, p.layers, p.heads
        )
        self._vocabulary: Vocabulary | None = None

    def load_assets(self, folder: Path) -> None:
        self._vocabulary = (
            bert_vocabulary(path_of(folder, "folder"), self.config.proposer.vocab_size) or self._vocabulary
        )

    def save_assets(self, folder: Path) -> None:
        if self._vocabulary is not None:
            self._vocabulary.save(folder)

    @property
    def proposer(self) -> nn.Module:
        return self.language

    def propose(self, given: Mapping[str, Any], size: tuple[int, int], seed: int) -> Layout | None:
        """A layout for the prompt among `given`.

        Raises:
            InputError: `no-vocabulary`: a prompt in words, but no vocabulary was loaded.
        """
        p = self.config.proposer
        mapped = p.maps in given and bool(p.map_names)
        prompts = self._prompts(given, p.reads[:1] if mapped else p.reads)
        if not prompts or any(name in given for name in p.yields_to if not (mapped and name == p.maps)):
            return None
        prompt = self._padded(prompts[:1])[0]
        if mapped:
            return self._named(prompt, given[p.maps], seed)
        numbers = self.language.write(prompt, seed, p.temperature)
        return Layout(objects=tuple(self._box(row) for row in numbers.tolist()))

    def _named(self, prompt: Tensor, labels: Tensor, seed: int) -> Layout | None:
        """The things in a map (H, W), with the classes that the prompt gives them."""
        c, p = self.config, self.config.proposer
        among = {
            label: choices
            for label, word in enumerate(p.map_names)
            if (choices := [i for i, name in enumerate(c.names) if name == word or name.endswith(f" {word}")])
        }
        things = regions(labels, among)[-c.max_objects :]  # the nearest things, if there are too many
        if not things:
            return None
        boxes = [Box(label=among[label][0], box=corners) for label, corners in things]
        places = self._numbers(Layout(objects=tuple(boxes)))[:, 1:].tolist()
        named = self.language.name(prompt, places, [among[label] for label, _ in things], seed, p.temperature)
        return Layout(
            objects=tuple(box.model_copy(update={"label": c.names[n]}) for box, n in zip(boxes, named, strict=True))
        )

    def proposal_losses(self, rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Tensor]:
        """See `ldmkit.Proposing.proposal_losses`: in nats per layout, for classes and places; means over all prompts.

        Raises:
            InputError: `missing-input`: a row without a prompt.
        """
        reads, pairs = self.config.proposer.reads, []
        for i, row in enumerate(rows):
            if not (prompts := self._prompts(row, reads)):
                what = f"there is no {' or '.join(reads)} to learn from"
                raise InputError("missing-input", what, where=f"inputs[{i}]")
            layout = self._numbers(row[name]).to(self.device)
            pairs += [(prompt, layout) for prompt in prompts]
        return self.language.losses(self._padded([prompt for prompt, _ in pairs]), [layout for _, layout in pairs])

    def _prompts(self, given: Mapping[str, Any], reads: Sequence[str]) -> list[str | list[int]]:
        """The prompts among the inputs, in the order of `reads`, without empty ones."""
        classes = self.config.proposer.classes
        found = [as_plain(given[name]) for name in reads if name in given]
        words = [classes[value] if isinstance(value, int) and value < len(classes) else value for value in found]
        return [value for value in words if value and not isinstance(value, int)]

    def _padded(self, prompts: Sequence[str | list[int]]) -> Tensor:
        p = self.config.proposer
        return padded_rows([self._ids(prompt) for prompt in prompts], p.length, p.pad, self.device)

    def _ids(self, text: str | list[int]) -> list[int]:
        p = self.config.proposer
        if not isinstance(text, str):
            check_ids(text[: p.length], p.length, p.vocab_size, p.reads[0])
            return text[: p.length]
        if self._vocabulary is None:
            raise no_vocabulary(type(self).__name__, BERT_FILES)
        return self._vocabulary.quietly(text, p.length)

    def _numbers(self, layout: Layout) -> Tensor:
        """(n, 5) int64: class, and centre, width and height in steps."""
        c = self.config
        self.check(layout)
        rows = []
        for box in layout.objects:
            x, y, w, h = box.rect
            places = (x + w / 2, y + h / 2, w, h)
            steps = [min(int(place * c.proposer.bins), c.proposer.bins - 1) for place in places]
            rows.append([class_number(box.label, c.n_classes, c.names), *steps])
        return torch.tensor(rows, dtype=torch.int64).view(-1, 5)

    def _box(self, row: list[int]) -> Box:
        label, *steps = row
        x, y, w, h = ((step + 0.5) / self.config.proposer.bins for step in steps)
        corners = (max(x - w / 2, 0.0), max(y - h / 2, 0.0), min(x + w / 2, 1.0), min(y + h / 2, 1.0))
        names = self.config.names
        return Box(label=names[label] if label < len(names) else label, box=corners)
