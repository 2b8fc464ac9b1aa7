"""The oracle: reads a picture of the world back into a map, objects with boxes and colours, a scene and a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldmkit import InputError, SourceError, read_json, write_json
from ldmkit.files.json import replacing
from ldmkit_miniworld.boxes import Found, suppress
from ldmkit_miniworld.oracle_network import SIDE, OracleConfig, OracleNetwork, Signs
from ldmkit_miniworld.vocabulary import CLASSES, COLOURED, COLOURS, OBJECTS, TIMES

WEIGHTS, CONFIG = "oracle.safetensors", "oracle.json"
FOLDER = Path(__file__).parent / "oracle_files"
_BATCH = 32
_MOST = 100


@dataclass(frozen=True)
class Reading:
    """What the oracle sees in N pictures.

    Args:
        objects: of each picture, surest first.
        semantic: (N,64,64) uint8, indices into `SEMANTIC`.
        labels, times: names of the scene type and of the time of each picture.
        features: (N, features) float32, which pictures are compared by.
    """

    objects: tuple[tuple[Found, ...], ...]
    semantic: np.ndarray
    labels: tuple[str, ...]
    times: tuple[str, ...]
    features: np.ndarray


class Oracle:
    """A trained network, and how its signs become objects.

    Args:
        held_out: how well it read renders that it was not trained on, by the name of the figure.
    """

    def __init__(self, network: OracleNetwork, held_out: Mapping[str, float] | None = None):
        self.network = network.eval().requires_grad_(False)
        self.held_out = dict(held_out or {})

    @classmethod
    def load(cls, folder: str | Path = FOLDER) -> Oracle:
        """The oracle of a folder; by default the one in this package.

        Raises:
            SourceError: files that are missing or do not fit each other.
        """
        folder = Path(folder)
        told = read_json(folder / CONFIG)
        if not isinstance(told, dict) or not {"config", "held_out"} <= told.keys():
            raise SourceError("oracle", "it is no oracle's config", where=str(folder / CONFIG))
        network = OracleNetwork(OracleConfig.of(told["config"], str(folder / CONFIG)))
        try:
            tensors = load_file(folder / WEIGHTS)
            network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except (OSError, RuntimeError, SafetensorError) as problem:
            raise SourceError("oracle", f"cannot be read: {problem}", where=str(folder / WEIGHTS)) from None
        return cls(network, told["held_out"])

    def save(self, folder: str | Path) -> None:
        """Write weights (bfloat16), config, and the accuracy on held-out renders."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        kept = {k: v.bfloat16().contiguous() for k, v in self.network.state_dict().items() if v.is_floating_point()}
        counters = {k: v for k, v in self.network.state_dict().items() if not v.is_floating_point()}
        with replacing(folder / WEIGHTS) as temporary:
            save_file({**kept, **counters}, temporary)
        write_json(folder / CONFIG, {"config": self.network.config.model_dump(mode="json"), "held_out": self.held_out})

    @torch.no_grad()
    def read(self, images: Tensor, progress: Callable[[int], None] | None = None) -> Reading:
        """What is in pictures (N,3,H,W) in [0,1], of 64x64 or a multiple of it (averaged down).

        Raises:
            InputError: `oracle-size`, `oracle-range`.
        """
        small = downscaled(images)
        parts: list[Reading] = []
        for start in range(0, len(small), _BATCH):
            signs = self.network(small[start : start + _BATCH].to(self.network.centres.device))
            parts.append(self._reading(Signs(*(field.float().cpu() for field in signs))))
            if progress is not None:
                progress(len(parts[-1].labels))
        return joined(parts)

    def _reading(self, signs: Signs) -> Reading:
        return Reading(
            tuple(self.objects(signs, row) for row in range(len(signs.label))),
            signs.semantic.argmax(1).to(torch.uint8).numpy(),
            tuple(CLASSES[i] for i in signs.label.argmax(1).tolist()),
            tuple(TIMES[i] for i in signs.time.argmax(1).tolist()),
            signs.features.numpy(),
        )

    def objects(self, signs: Signs, row: int) -> tuple[Found, ...]:
        """The objects of one picture: boxes of one kind that overlap are averaged, weighted by their scores."""
        scores = signs.kinds[row].sigmoid()
        found: list[Found] = []
        for kind, name in enumerate(OBJECTS):
            at = _sure(scores[:, kind], self.network.config.threshold[kind])
            if not at.numel():
                continue
            boxes, weights = signs.boxes[row, at, kind].numpy(), scores[at, kind].numpy()
            hues = signs.colours[row, at, kind].softmax(-1).numpy()
            for group in suppress(boxes, weights, self.network.config.same):
                share = np.square(weights[group])[:, None] / np.square(weights[group]).sum()
                corners = np.clip((boxes[group] * share).sum(0) / SIDE, 0, 1)
                hue = COLOURS[int((hues[group] * share).sum(0).argmax())] if name in COLOURED else None
                box = (float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3]))
                found.append(Found(name, hue, box, float(weights[group[0]])))
        return tuple(sorted(found, key=lambda thing: -thing.score))


def _sure(scores: Tensor, threshold: float) -> Tensor:
    """Places whose score reaches the threshold, best first, at most `_MOST`."""
    best = scores.topk(min(_MOST, len(scores)))
    return best.indices[best.values >= threshold]


def joined(parts: Sequence[Reading]) -> Reading:
    """Readings of several batches as one."""
    return Reading(
        tuple(row for part in parts for row in part.objects),
        np.concatenate([part.semantic for part in parts]),
        tuple(name for part in parts for name in part.labels),
        tuple(name for part in parts for name in part.times),
        np.concatenate([part.features for part in parts]),
    )


def downscaled(images: Tensor) -> Tensor:
    """Pictures (N,3,H,W) in [0,1] averaged down to 64x64.

    Raises:
        InputError: `oracle-size`: other sizes than 64, 128, 192 ...; `oracle-range`.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or not len(images):
        what = f"pictures of shape {tuple(images.shape)} and {images.dtype}"
        raise InputError("oracle-size", what, where="images", fits="floats (N, 3, 64, 64)")
    height, width = images.shape[-2:]
    if height != width or height % SIDE:
        raise InputError("oracle-size", f"pictures of {height}x{width}", where="images", fits="64x64, 128x128, ...")
    if float(images.min()) < -1e-3 or float(images.max()) > 1 + 1e-3:
        what = f"values from {float(images.min()):.3g} to {float(images.max()):.3g}"
        raise InputError("oracle-range", what, where="images", fits="values in [0, 1]")
    return images.float() if height == SIDE else F.avg_pool2d(images.float(), height // SIDE)


def as_tensor(pictures: Sequence[np.ndarray]) -> Tensor:
    """(N,3,H,W) float32 in [0,1] of pictures (H,W,3) uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)


@cache
def bundled() -> Oracle:
    """The oracle that comes with this package, read once."""
    return Oracle.load()
