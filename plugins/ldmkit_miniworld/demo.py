"""One sheet of what a model of the world does: every condition alone, all together, three samplers, an inpainting.

Conditions are those of the first scenes of the split `demo`, which nothing is trained on, with fixed seeds. What is
passed over is passed over for its conditions, never for what was drawn: captions that name fewer than two kinds of
objects where text is shown, scenes without a coloured object where one is painted over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ldmkit_drawing.drawings import masked
from ldmkit_drawing.sheets import Cell, Sheet
from torch import Tensor

from ldmkit import Pipeline, Start
from ldmkit_miniworld.asking import inputs_of, modalities_of, picture_size
from ldmkit_miniworld.boxes import colour_of, kind_of
from ldmkit_miniworld.showing import condition, shown
from ldmkit_miniworld.vocabulary import COLOURS, layout_class
from ldmkit_miniworld.world import World, WorldPicture

SPLIT = "demo"
SAMPLES = 4
SAMPLERS = ("ddim", "dpmpp-2m", "unipc")
FEW = 0.4
"""Share of the steps that samplers are compared with: with all of them they agree."""
NAMES = {"text": "text", "label": "class", "layout": "boxes", "semantic": "semantic map"}
MARGIN = 0.05
"""How far around an object an inpainting's mask reaches, in parts of the picture."""

Progress = Callable[[str, int, int], None]
"""Called with what is being drawn, the steps of it that are done, and how many there are."""


@dataclass
class Demo:
    """Draws the sheet.

    Args:
        pipe: takes some of the world's conditions; parts of the sheet that it cannot do are left out.
        seed: of the first picture of each part.
        steps: of the sampler; None: as many as the model takes by itself.
        samples: pictures of each condition.
        progress: on_step of every step.
        seconds: how long each part took, once it is drawn.
    """

    pipe: Pipeline
    seed: int = 0
    steps: int | None = None
    samples: int = SAMPLES
    progress: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = modalities_of(self.pipe)
        self.world = World(picture_size(self.pipe))
        self.transitions = self.steps or self.pipe.defaults.steps
        self._number = -1

    def sheet(self) -> Sheet:
        """The sheet, with everything drawn.

        Raises:
            InputError: `eval-inputs`, `eval-labels`, `eval-size`: it is no model of the world; and what a run raises.
        """
        last = self.seed + self.samples - 1
        sheet = Sheet(
            f"ldmkit demo: {self.pipe.origin or 'a model in memory'}",
            ("condition", "its scene", *(f"seed {self.seed + i}" for i in range(self.samples))),
            note=f"Conditions of held-out scenes, in their order; seeds {self.seed} to {last}, {self.transitions} "
            'steps; no picture is picked. "Its scene" is what a condition was taken from: the model does not see it.',
        )
        self._alone(sheet)
        together = self._next(_tells)
        if len(self.taken) > 1:
            self._together(sheet, together)
        self._samplers(sheet, together)
        self._inpainting(sheet, self._next(_coloured))
        return sheet

    def _next(self, fits: Callable[[WorldPicture], object]) -> WorldPicture:
        """The next scene of the split whose conditions fit."""
        while True:
            self._number += 1
            picture = self.world.sample(SPLIT, self._number)
            if fits(picture):
                return picture

    def _alone(self, sheet: Sheet) -> None:
        for name in self.taken:
            picture = self._next(_tells if name == "text" else _any)
            images = self._draw(NAMES[name], inputs_of(picture, (name,)), range(self.samples))
            sheet.row(condition(picture, name), picture.image, *images, label=f"{NAMES[name]} alone")

    def _together(self, sheet: Sheet, picture: WorldPicture) -> None:
        words = ", ".join(NAMES[name] for name in self.taken)
        images = self._draw("all together", inputs_of(picture, self.taken), range(self.samples))
        sheet.heading(f"Together: {words}")
        given = [Cell(condition(picture, name), NAMES[name]) for name in self.taken]
        sheet.row(*given, Cell(picture.image, "their scene"), label="given")
        sheet.row(*(Cell(image, f"seed {self.seed + i}") for i, image in enumerate(images)), label="drawn")

    def _samplers(self, sheet: Sheet, picture: WorldPicture) -> None:
        cells, few = [], max(1, round(self.transitions * FEW))
        chosen = ("text",) if "text" in self.taken else self.taken
        for name in SAMPLERS:
            inputs = inputs_of(picture, chosen)
            images = self._draw(f"sampler {name}", inputs, range(2), sampler=name, steps=few)
            cells += [Cell(image, f"{name}, seed {self.seed + i}") for i, image in enumerate(images)]
        words = " and ".join(NAMES[name] for name in chosen)
        sheet.heading(f"Three samplers, {few} steps, from the same noise and the same {words}")
        sheet.row(*cells, label=picture.caption if chosen == ("text",) else "drawn")

    def _inpainting(self, sheet: Sheet, picture: WorldPicture) -> None:
        hole, layout = self._hole(picture)
        given = {"layout": layout} if "layout" in self.taken else {}
        start = Start(image=picture.image, strength=1.0, mask=hole)
        images = self._draw("inpainting", given, range(self.samples - 1), start=start)
        asked = [Cell(shown("layout", layout), "boxes asked for")] if given else []
        sheet.heading("Inpainting: an object in another colour; outside the mask every pixel stays as it is")
        sheet.row(
            Cell(picture.image, "known picture"), Cell(masked(picture.image, hole), "mask"), *asked,
            *(Cell(image, f"seed {self.seed + i}") for i, image in enumerate(images)), label="drawn",
        )  # fmt: skip

    def _hole(self, picture: WorldPicture) -> tuple[Tensor, list[dict[str, Any]]]:
        """A mask over the largest object that has a colour, and the scene's boxes with the next colour for it."""
        chosen = max(_coloured(picture), key=lambda i: _area(picture.layout[i]["box"]))
        layout = [dict(box) for box in picture.layout]
        kind, colour = kind_of(layout[chosen]["label"]), colour_of(layout[chosen]["label"])
        layout[chosen]["label"] = layout_class(kind, COLOURS[(COLOURS.index(str(colour)) + 1) % len(COLOURS)])
        return _mask(layout[chosen]["box"], self.world.size), layout

    def _draw(self, name: str, inputs: dict[str, Any], offsets: Iterable[int], **options: Any) -> Sequence[Tensor]:
        """Pictures (3,H,W) in [0,1] of one condition, and the time that they took."""
        began = time.perf_counter()
        seeds, size = [self.seed + i for i in offsets], (self.world.size, self.world.size)
        prepared = self.pipe.prepare(inputs, **{"seeds": seeds, "steps": self.steps, "size": size, **options})
        count = len(prepared.sigmas) - 1

        def on_step(step: Any) -> None:
            if self.progress is not None:
                self.progress(name, step.index + 1, count)

        images = self.pipe.run(prepared, on_step).images
        self.seconds[name] = round(time.perf_counter() - began, 2)
        return images.unbind()


def _any(picture: WorldPicture) -> bool:
    return True


def _tells(picture: WorldPicture) -> bool:
    """Whether the caption names two kinds of objects."""
    return len(picture.scene.caption_facts.objects) > 1


def _coloured(picture: WorldPicture) -> list[int]:
    """The numbers of the boxes whose objects have a colour."""
    return [i for i, box in enumerate(picture.layout) if colour_of(box["label"])]


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _mask(box: Sequence[float], side: int) -> Tensor:
    """(1,H,W): 1 in the box and a little around it."""
    mask = np.zeros((side, side), np.float32)
    x0, y0 = (max(0, round((v - MARGIN) * side)) for v in box[:2])
    x1, y1 = (min(side, round((v + MARGIN) * side)) for v in box[2:])
    mask[y0:y1, x0:x1] = 1
    return torch.from_numpy(mask)[None]
