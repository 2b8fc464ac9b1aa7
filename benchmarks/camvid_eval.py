"""Is there road where the map says road? Maps of held-out streets, drawn by the model of `examples/camvid`.

    python benchmarks/camvid_eval.py examples/camvid/recipe.yaml --checkpoints

The judge is a linear classifier of pixels, fitted to the training photographs: colours, their squares and products,
and their means and deviations over two neighbourhoods; it does not see where in the picture a pixel lies. Its labels
are compared with the map asked for and with another picture's, on drawings and on real photographs, which is the
ceiling: `accuracy` over all labelled pixels, `miou` over the classes that occur. `colour` needs no judge: over pictures
and classes, the correlation of a class's mean colour in the drawing with that in the photograph of the same map, after
the class's mean over all photographs is taken away.

The pictures' licence (CC BY-NC) allows measuring; nothing trained on them is part of this project.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from real_pictures import Held, Picture, held, measure, opened, options
from torch import Tensor

CLASSES = 11
UNLABELLED = 11
SCALES = (5, 15)
PIXELS = 400
"""Of a photograph that the judge is fitted to."""
LEAST = 40
"""Pixels of a class in a picture for its mean colour to count."""

PALETTE = np.array(
    [(128, 160, 200), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
     (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)], dtype=np.uint8,
)  # fmt: skip


def features(picture: Picture) -> Tensor:
    """(H * W, F): what the judge sees of each pixel."""
    rgb = torch.from_numpy(np.array(picture)).movedim(-1, 0).float().div(255)[None]
    maps = [rgb, rgb.square(), rgb * rgb.roll(1, 1)]
    for side in SCALES:
        around = F.pad(rgb, [side // 2] * 4, mode="reflect")
        mean = F.avg_pool2d(around, side, 1)
        spread = (F.avg_pool2d(around.square(), side, 1) - mean.square()).clamp(min=0).sqrt()
        maps += [mean, mean.square(), spread]
    return torch.cat(maps, 1)[0].flatten(1).T


class Judge:
    """Softmax regression on standardised features, every class weighted by one over the root of its share.

    Args:
        known: photographs with their maps.
    """

    def __init__(self, known: Held, steps: int = 300) -> None:
        random = torch.Generator().manual_seed(0)
        rows, labels = [], []
        for picture, inputs in zip(known.pictures, known.inputs, strict=True):
            label = torch.from_numpy(np.array(inputs["semantic"])).flatten().long()
            usable = (label != UNLABELLED).nonzero().flatten()
            chosen = usable[torch.randint(len(usable), (PIXELS,), generator=random)]
            rows.append(features(picture)[chosen])
            labels.append(label[chosen])
        x, y = torch.cat(rows), torch.cat(labels)
        self.mean, self.std = x.mean(0), x.std(0)
        weight = torch.bincount(y, minlength=CLASSES).clamp(min=1).float().rsqrt()
        self.layer = torch.nn.Linear(x.shape[1], CLASSES)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)
        optimiser = torch.optim.Adam(self.layer.parameters(), lr=0.05)
        x = (x - self.mean) / self.std
        for _ in range(steps):
            optimiser.zero_grad()
            F.cross_entropy(self.layer(x), y, weight).backward()
            optimiser.step()

    @torch.no_grad()
    def __call__(self, picture: Picture) -> NDArray[Any]:
        """(H, W) labels."""
        found = self.layer((features(picture) - self.mean) / self.std).argmax(1)
        return np.asarray(found.reshape(picture.shape[:2]).numpy())


def agreement(seen: Sequence[NDArray[Any]], maps: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Share of labelled pixels that agree, and the mean intersection over union of the classes."""
    counts = np.zeros((CLASSES, CLASSES))
    for a, b in zip(seen, maps, strict=True):
        known = b != UNLABELLED
        counts += np.bincount(b[known].astype(int) * CLASSES + a[known], minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    hits = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - hits
    present = counts.sum(1) > 0
    return float(hits.sum() / counts.sum()), float((hits[present] / either[present]).mean())


def class_colours(picture: Picture, labels: NDArray[Any]) -> dict[int, NDArray[Any]]:
    """Class -> mean colour, where there is enough of it."""
    return {c: picture[labels == c].mean(0) for c in range(CLASSES) if (labels == c).sum() >= LEAST}


def correlation(pictures: Sequence[Picture], real: Sequence[Picture], maps: Sequence[NDArray[Any]]) -> float:
    """Of class colours in pictures and photographs, both less the class's mean over the photographs."""
    ours = [class_colours(p, m) for p, m in zip(pictures, maps, strict=True)]
    theirs = [class_colours(p, m) for p, m in zip(real, maps, strict=True)]
    usual = {
        c: np.mean([t[c] for t in theirs if c in t], axis=0) for c in range(CLASSES) if any(c in t for t in theirs)
    }
    pairs = [(o[c] - usual[c], t[c] - usual[c]) for o, t in zip(ours, theirs, strict=True) for c in o]
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return float(np.corrcoef(a, b)[0, 1])


def shown(picture: Picture, inputs: Mapping[str, Any]) -> list[Picture]:
    """The picture, and the map's colours."""
    labels = np.array(inputs["semantic"])
    painted = np.where((labels == UNLABELLED)[..., None], 0, PALETTE[np.minimum(labels, CLASSES - 1)])
    return [picture, painted.astype(np.uint8)]


def main(given: argparse.Namespace) -> None:
    recipe, folder = opened(given)
    judge = Judge(held(recipe, folder, training=True))

    def scores(pictures: Sequence[Picture], asked: Held) -> dict[str, float]:
        maps = [np.array(row["semantic"]) for row in asked.inputs]
        seen = [judge(picture) for picture in pictures]
        found: dict[str, float] = {}
        for name, wanted in (("right", maps), ("shuffled", [np.array(row["semantic"]) for row in asked.others()])):
            found[f"accuracy_{name}"], found[f"miou_{name}"] = agreement(seen, wanted)
        found["colour"] = correlation(pictures, asked.pictures, maps)
        return {name: round(value, 3) for name, value in found.items()}

    measure(given, scores, shown)


if __name__ == "__main__":
    main(options(str(__doc__)).parse_args())
