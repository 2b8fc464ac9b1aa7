"""What the oracle is trained to say of a picture, and how far off it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit_miniworld.boxes import colour_of, kind_of
from ldmkit_miniworld.oracle_network import SIDE, Signs
from ldmkit_miniworld.vocabulary import CLASSES, COLOURS, LAYOUT_CLASSES, OBJECTS, TIMES
from ldmkit_miniworld.world import WorldPicture

MOST = 12
"""Objects of one picture."""
_WEIGHTS = {"semantic": 2.0, "kinds": 1.0, "boxes": 2.0, "colours": 1.0, "label": 0.5, "time": 0.5, "present": 2.0}
_REGION = 0.4
_FAR = 1e6


class Targets(NamedTuple):
    """What is in N pictures.

    Args:
        semantic: (N,64,64) uint8.
        boxes: (N, MOST, 4) float32, corners in pixels.
        kinds: (N, MOST) int64, -1 where there is no further object.
        colours: (N, MOST) int64, -1 for objects without.
        label, time: (N,) int64.
        present: (N, layout classes) float32, 0 or 1.
    """

    semantic: Tensor
    boxes: Tensor
    kinds: Tensor
    colours: Tensor
    label: Tensor
    time: Tensor
    present: Tensor


class Places(NamedTuple):
    """Where objects have to be seen: row of the batch, place, kind, and which object of its picture; (Q,) each."""

    row: Tensor
    place: Tensor
    kind: Tensor
    item: Tensor


def targets_of(pictures: Sequence[WorldPicture]) -> Targets:
    """Targets of pictures of the world, of 64x64."""
    count = len(pictures)
    boxes = np.zeros((count, MOST, 4), np.float32)
    kinds, colours = np.full((count, MOST), -1), np.full((count, MOST), -1)
    present = np.zeros((count, len(LAYOUT_CLASSES)), np.float32)
    for row, picture in enumerate(pictures):
        for i, item in enumerate(picture.layout):
            colour = colour_of(item["label"])
            boxes[row, i] = np.array(item["box"]) * SIDE
            kinds[row, i] = OBJECTS.index(kind_of(item["label"]))
            colours[row, i] = -1 if colour is None else COLOURS.index(colour)
            present[row, LAYOUT_CLASSES.index(item["label"])] = 1
    return Targets(
        torch.from_numpy(np.stack([picture.semantic for picture in pictures])),
        torch.from_numpy(boxes),
        torch.from_numpy(kinds).long(),
        torch.from_numpy(colours).long(),
        torch.tensor([CLASSES.index(picture.label) for picture in pictures]),
        torch.tensor([TIMES.index(picture.scene.time) for picture in pictures]),
        torch.from_numpy(present),
    )


def assigned(targets: Targets, centres: Tensor) -> Places:
    """The places (P,2) in the middle part of each box, and always the one nearest to its centre; where two objects of
    one kind claim a place, it goes to the one whose centre is nearer (to both, at equal distance)."""
    middle = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2
    reach = ((targets.boxes[..., 2:] - targets.boxes[..., :2]) / 2 * _REGION).clamp_min(1.5)
    distance = ((centres[None, None] - middle[:, :, None]) / reach[:, :, None]).abs().amax(-1)  # (B, MOST, P)
    nearest = distance == distance.amin(-1, keepdim=True)
    distance = distance.masked_fill(nearest, 0.0).masked_fill(targets.kinds[..., None] < 0, _FAR)
    rivals = (targets.kinds[:, :, None] == targets.kinds[:, None]) & (targets.kinds >= 0)[:, None]
    best = torch.full_like(distance, _FAR)
    for other in range(targets.kinds.shape[1]):
        theirs = distance[:, other, None].expand_as(distance)
        best = torch.where(rivals[:, :, other, None], torch.minimum(best, theirs), best)
    row, item, place = ((distance <= 1) & (distance <= best)).nonzero(as_tuple=True)
    return Places(row, place, targets.kinds[row, item], item)


def losses(signs: Signs, targets: Targets, centres: Tensor) -> Mapping[str, Tensor]:
    """The terms by name: cross-entropies, generalised IoU of boxes (arXiv:1902.09630), and for the kinds the quality
    focal loss (arXiv:2006.04388), whose target is how well the box fits."""
    at = assigned(targets, centres)
    boxes, colours = targets.boxes[at.row, at.item], targets.colours[at.row, at.item]
    plain, generalised = box_overlaps(signs.boxes[at.row, at.place, at.kind], boxes)
    wanted = torch.zeros_like(signs.kinds)
    wanted[at.row, at.place, at.kind] = plain.detach().clamp_min(0)
    count = max(len(at.row), 1)
    focus = (signs.kinds.sigmoid() - wanted).square()
    crossed = F.binary_cross_entropy_with_logits(signs.kinds, wanted, reduction="none")
    painted = signs.colours[at.row, at.place, at.kind]
    return {
        "semantic": F.cross_entropy(signs.semantic, targets.semantic.long()),
        "kinds": (focus * crossed).sum() / count,
        "boxes": (1 - generalised).sum() / count,
        "colours": F.cross_entropy(painted, colours, ignore_index=-1, reduction="sum") / count,
        "label": F.cross_entropy(signs.label, targets.label),
        "time": F.cross_entropy(signs.time, targets.time),
        "present": F.binary_cross_entropy_with_logits(signs.present, targets.present),
    }


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([value * _WEIGHTS[name] for name, value in terms.items()]).sum()


def box_overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Q,) of boxes (Q,4), pair by pair."""
    shared = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp_min(0)
    around = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(-1) for boxes in (first, second)]
    both, hull = shared.prod(-1), around.prod(-1).clamp_min(1e-6)
    either = (areas[0] + areas[1] - both).clamp_min(1e-6)
    plain = both / either
    return plain, plain - (hull - either) / hull
