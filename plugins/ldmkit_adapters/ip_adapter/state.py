"""What an IP-Adapter keeps for a run, and what it adds at a port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit import CompositionError, Frame, Run, attention
from ldmkit_adapters.ip_adapter.config import IPAdapterConfig

KeysValues = tuple[Tensor, Tensor]


@dataclass
class IPState:
    """Keys and values of the pictures, and where and in which rows they count.

    Args:
        config: the adapter's.
        strengths: port -> factor.
        kv: port -> keys and values (B, pictures, tokens, width).
        there: (B, pictures) bool, False where a row has fewer pictures; None: all.
        rows: (B, 1, 1), 1 in rows that have pictures; None: all.
        regions: (B, pictures, H, W) in [0, 1], of whole latents; None: everywhere.
        marked: (B, 1, 1) bool, rows that have regions; None: all, where there are any.
        run: None in training.
        window: (top, left, height, width) of the latents that are drawn; None: all of them.
    """

    config: IPAdapterConfig
    strengths: Mapping[str, float]
    kv: Mapping[str, KeysValues]
    there: Tensor | None
    rows: Tensor | None
    regions: Tensor | None
    marked: Tensor | None
    run: Run | None
    window: tuple[int, int, int, int] | None = None
    shrunk: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    """(rows, columns) of a map -> the regions at its positions (B, pictures, L, 1)."""

    def crop(self, top: int, left: int, height: int, width: int) -> IPState:
        """The state for a window of the latents, in latent pixels."""
        return replace(self, window=(top, left, height, width), shrunk={})

    def added(self, port: str, value: Tensor, frame: Frame) -> Tensor:
        """The result of the attention at a port (B, L, width) with that to the pictures added."""
        if self.run is not None and frame.sigma is not None and not self.config.holds(self.run, frame.sigma):
            return value
        strength, kv = self.strengths.get(port, 0.0), self.kv.get(port)
        if kv is None or not strength:
            return value
        q: Tensor = frame.scratch["query"]
        if self.regions is None and not self.config.weights:
            seen = self._together(q, kv)
        else:
            seen = self._apart(q, kv, frame)
            if self.marked is not None and not self.config.weights:
                seen = torch.where(self.marked, seen, self._together(q, kv))
        seen = seen if self.rows is None else seen * self.rows
        return value + (seen if strength == 1.0 else seen * strength).to(value.dtype)

    def _together(self, q: Tensor, kv: KeysValues) -> Tensor:
        """One attention to the tokens of all pictures."""
        k, v = (_heads(tensor.flatten(1, 2), q) for tensor in kv)
        mask = None
        if self.there is not None:
            mask = self.there.repeat_interleave(kv[0].shape[2], dim=1)[:, None, None]
        return _merged(attention(q, k, v, mask))

    def _apart(self, q: Tensor, kv: KeysValues, frame: Frame) -> Tensor:
        """An attention to each picture, in its region and with its weight, added up."""
        regions = None if self.regions is None else self._shrunk(self.regions, q.shape[2], frame)
        total: Tensor | None = None
        for i in range(kv[0].shape[1]):
            k, v = (_heads(tensor[:, i], q) for tensor in kv)
            seen = _merged(attention(q, k, v))
            if regions is not None:
                seen = seen * regions[:, i]
            if self.config.weights:
                seen = seen * self.config.weights[i]
            if self.there is not None:
                seen = seen * self.there[:, i, None, None]
            total = seen if total is None else total + seen
        assert total is not None
        return total

    def _shrunk(self, regions: Tensor, length: int, frame: Frame) -> Tensor:
        """The regions at the positions of a map of `length` positions.

        They are resized as diffusers does it: bicubic, from the picture's size at once.
        """
        height, width = frame.x.shape[2:]
        key = (int(height), int(width), length)
        if key not in self.shrunk:
            if self.window is not None:
                regions = self._cut(regions, self.window)
            size = _map_size(*key)
            wide = regions.to(torch.promote_types(regions.dtype, torch.float32))
            small = F.interpolate(wide, size=size, mode="bicubic")
            self.shrunk[key] = small.flatten(2)[..., None].to(regions.dtype)
        return self.shrunk[key]

    def _cut(self, regions: Tensor, window: tuple[int, int, int, int]) -> Tensor:
        if self.run is None:
            what = "regions of pictures cannot be cut into patches where the size of the latents is not known"
            raise CompositionError("not-croppable", what, fits="no regions in training on patches")
        top, left, height, width = window
        down, across = (regions.shape[2] // self.run.size[0], regions.shape[3] // self.run.size[1])
        rows, columns = slice(top * down, (top + height) * down), slice(left * across, (left + width) * across)
        return regions[..., rows, columns]


def _map_size(height: int, width: int, length: int) -> tuple[int, int]:
    """Rows and columns of the map of `length` positions that latents (height, width) are halved to."""
    tried: list[tuple[int, int]] = []
    for up in (True, False):  # a padded convolution rounds halves up, others round them down
        rows, columns = height, width
        while rows * columns > length:
            rows, columns = ((rows + up) // 2, (columns + up) // 2)
        tried.append((rows, columns))
        if rows * columns == length:
            return rows, columns
    what = f"an attention has {length} positions, and latents {height} x {width} are halved to none of them: {tried}"
    raise CompositionError("other-network", what, fits="a network that halves its maps, without regions otherwise")


def _heads(tokens: Tensor, q: Tensor) -> Tensor:
    """(B, L, H D) -> (B, H, L, D) with the heads of the queries, in their dtype."""
    return tokens.unflatten(2, (q.shape[1], -1)).transpose(1, 2).to(q.dtype)


def _merged(seen: Tensor) -> Tensor:
    return seen.transpose(1, 2).flatten(2)
