"""Soft edges by HED, the network that ControlNets for soft edges were trained with."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from ldmkit_checkpoints.compvis.checkpoint import open_checkpoint
from pydantic import Field
from torch import Tensor, nn

from ldmkit import Extractor, RunError, WeightsError, from_levels, to_levels
from ldmkit_extractors.gaussian import blurred
from ldmkit_extractors.soft import stepped
from ldmkit_extractors.weights import found, stamp

Array = np.ndarray[Any, Any]
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of convolutions of each stage, at sizes that halve: those of VGG-16."""
SMALLEST = 2 ** (len(STAGES) - 1)
"""Side of the smallest picture that the network halves four times."""


class HedBlock(nn.Module):
    """Convolutions of one size, and the edges that are read off them."""

    def __init__(self, inputs: int, width: int, count: int):
        super().__init__()
        widths = [inputs] + [width] * (count - 1)
        self.convs = nn.ModuleList(nn.Conv2d(channels, width, 3, padding=1) for channels in widths)
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return x


class Network(nn.Module):
    """Holistically nested edges (Xie and Tu 2015) in the layout of `ControlNetHED.pth`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        inputs = [3, *(width for width, _ in STAGES)]
        for number, (width, count) in enumerate(STAGES, start=1):
            self.add_module(f"block{number}", HedBlock(inputs[number - 1], width, count))

    def forward(self, levels: Tensor) -> list[Tensor]:
        """Logits of edges (B, 1, h, w), from the picture's size down, of RGB levels (B, 3, H, W) from 0 to 255."""
        x, found = levels - self.norm, []
        for number in range(1, len(STAGES) + 1):
            stage: Any = self.get_submodule(f"block{number}")
            x = stage(x if number == 1 else F.max_pool2d(x, 2))
            found.append(stage.projection(x))
        return found


class Hed(Extractor):
    """Soft white edges on black, by holistically nested edge detection (the hint of `control_*_softedge` and `_hed`).

    Reads `ControlNetHED.pth` of lllyasviel/Annotators, or its tensors in a .safetensors file. The hint is the sigmoid
    of the mean of five maps, brought to the picture's size bilinearly. Pictures smaller than 16 pixels are continued
    by their edges for the network.

    Args:
        weights: the file. Nothing is downloaded.
        steps: of brightness that are told apart; 0: all, 2: `safe`, the hint of `softedge` with it.
        scribble: strokes as by hand instead, for `control_*_scribble`: the ridges above one half, thickened.
    """

    reads: ClassVar[tuple[str, ...]] = ("weights",)
    api: ClassVar[int] = 1

    weights: str | None = None
    steps: int = Field(default=0, ge=0, le=255)
    scribble: bool = False

    def extract(self, value: Tensor) -> Tensor:
        path = found(
            self.weights, "hed:weights=FILE", "a file of HED's weights", "lllyasviel/Annotators' ControlNetHED.pth"
        )
        levels = torch.from_numpy(to_levels(value)).permute(2, 0, 1)[None].float()
        edges = stepped(probabilities(_network(path, stamp(path)), levels), self.steps)
        grey = (edges * 255).clip(0, 255).astype(np.uint8)
        return from_levels(scribbled(grey) if self.scribble else grey)


def probabilities(network: Network, levels: Tensor) -> Array:
    """Edges in [0, 1], (H, W) float64, of RGB levels (1, 3, H, W).

    Raises:
        RunError: `not-finite`.
    """
    size = levels.shape[-2:]
    missing = [max(0, SMALLEST - side) for side in size]
    with torch.no_grad():
        maps = network(F.pad(levels, (0, missing[1], 0, missing[0]), mode="replicate"))
        whole = maps[0].shape[-2:]
        maps = [F.interpolate(one, size=whole, mode="bilinear", align_corners=False) for one in maps]
    mean = torch.cat(maps, dim=1).mean(dim=1)[0, : size[0], : size[1]].double()
    if not bool(mean.isfinite().all()):
        raise RunError("not-finite", "NaN or infinity in the edges", where="hed", fits="undamaged weights")
    return np.asarray(mean.sigmoid().numpy())


def scribbled(edges: Array) -> Array:
    """Strokes as by hand, 0 or 255, of soft edges (H, W) uint8.

    Blurred edges (3 pixels) are kept where above 127 and largest along a row, a column or a diagonal, blurred again,
    and white above 4.
    """
    soft = blurred(edges.astype(np.float32), 3.0)
    around = np.pad(soft, 1, constant_values=-np.inf)
    height, width = soft.shape

    def beside(down: int, right: int) -> Array:
        return around[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    ways = ((0, 1), (1, 0), (1, 1), (1, -1))
    ridge = np.any([(soft >= beside(y, x)) & (soft >= beside(-y, -x)) for y, x in ways], axis=0)
    thick = blurred(np.where(ridge & (soft > 127), 255.0, 0.0), 3.0, reach=3.0)
    return np.where(np.rint(thick) > 4, np.uint8(255), np.uint8(0))


@lru_cache(maxsize=2)
def _network(path: Path, _stamp: object) -> Network:
    """The network in a file, read once while the file is the same.

    Raises:
        SourceError: as of any checkpoint.
        WeightsError: `not-hed`: its tensors are others.
    """
    tensors, _ = open_checkpoint(path)
    network = Network()
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    held = {name: tuple(lazy.shape) for name, lazy in tensors.items()}
    if held != wanted:
        lacking = sorted(wanted.keys() - held.keys()) or sorted(held.keys() - wanted.keys())
        lacking = lacking or sorted(name for name in wanted if held[name] != wanted[name])
        what = f"its tensors are not those of HED: {lacking[0]} is absent, unknown or of another shape"
        raise WeightsError("not-hed", what, where=str(path), fits="ControlNetHED.pth of lllyasviel/Annotators")
    network.load_state_dict({name: lazy.read(True).float() for name, lazy in tensors.items()})
    return network.eval().requires_grad_(False)
