"""Estimates of network calls, memory and duration before a run starts, and checks against limits.

Nothing is executed. The memory estimate consists of the parts' own figures (`footprint`) and the tensors of a run.
Parts without a figure, adapters, conditioners and gradients of guidance are not counted. The estimate is thus a lower
bound, and a run that fits in memory is never refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from ldmkit.bounds import MAX_BATCH, MAX_DAYS, MAX_NUMBER, MAX_PIXELS, MAX_STEPS
from ldmkit.contracts.axes import shown_size
from ldmkit.contracts.part import Part
from ldmkit.contracts.work import Direction, Work
from ldmkit.errors import InputError
from ldmkit.run.machine import Room, room
from ldmkit.run.sizes import Size, latent_size, padded

if TYPE_CHECKING:
    from ldmkit.contracts.codec import Codec
    from ldmkit.contracts.denoiser import Denoiser

STATES = 6
"""Latent-sized tensors of a run: state, noise, the last step, and the sampler's history."""
PICTURES = 4
"""Picture-sized float32 tensors while decoding: the output, and its copies in float32, in [0, 1] and on the CPU."""
GROUP = 2**31
"""Limit of the activation memory of a batch in the codec, in bytes; batching large pictures is not faster."""
CPU_RATE, GPU_RATE = 4e10, 4e13
"""FLOP/s of one CPU core and of a GPU; 30 to 60 GFLOP/s were measured with U-Nets on one core of an EPYC."""

DAY = 86_400
_NOUNS = {0: "vector", 2: "picture", 3: "video"}
_CLASSES = ((60, "seconds"), (3600, "minutes"), (DAY, "hours"), (30 * DAY, "days"), (365 * DAY, "months"))


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a run.

    Args:
        pictures: number of pictures (or other samples).
        size: (height, width) in pixels; for other data one number per axis.
        steps: transitions of the sampler.
        evaluations: calls of the network.
        rows: batch size of each call.
        bytes: peak memory without weights, a lower bound.
        room: memory of the device available besides the weights; None if unknown.
        seconds: from the operation count and a typical speed, only accurate to an order of magnitude; 0 if unknown.
    """

    pictures: int
    size: Size
    steps: int
    evaluations: int
    rows: int
    bytes: int
    room: Room | None
    seconds: float

    @property
    def time(self) -> str:
        """Order of magnitude: "seconds", "minutes", "hours", "days", "months", "years" or "unknown"."""
        if not self.seconds:
            return "unknown"
        return next((name for limit, name in _CLASSES if self.seconds < limit), "years")

    @property
    def fits(self) -> bool:
        """Whether the run fits in memory; True if that is unknown."""
        return self.room is None or self.bytes <= self.room.bytes

    def of_run(self, steps: int, evaluations: int) -> Estimate:
        """The estimate for other numbers of steps and evaluations."""
        seconds = self.seconds * evaluations / max(self.evaluations, 1)
        return replace(self, steps=steps, evaluations=evaluations, seconds=seconds)

    def repeated(self, runs: int, held: int = 0) -> Estimate:
        """The estimate for `runs` consecutive runs, whose results take `held` bytes."""
        total = self.evaluations * runs
        return replace(self, evaluations=total, bytes=self.bytes + held, seconds=self.seconds * runs)

    def __str__(self) -> str:
        shape = count(self.pictures, _NOUNS.get(len(self.size), "sample"))
        shape += f" of {shown_size(self.size)}" if self.size else ""
        calls = f", {count(self.evaluations, 'evaluation')} of {count(self.rows, 'row')}" if self.evaluations else ""
        took = "" if self.time == "unknown" else f", {self.time} of work"
        return f"{shape}{calls}, at least {shown_bytes(self.bytes)} of memory{took}"


def estimate_run(
    codec: Codec,
    denoiser: Denoiser,
    parts: Iterable[Part],
    *,
    pictures: int,
    views: int,
    apart: int = 0,
    steps: int,
    evaluations: int,
    size: Size,
    starts: int = 0,
) -> Estimate:
    """The estimate for a run of `pictures` with `views` network rows each, after encoding `starts` pictures.

    Args:
        apart: how many of the views are evaluated by perturbed networks, in separate calls.
    """
    latent = latent_size(size, codec)
    whole = padded(size, codec)
    states = STATES * pictures * codec.channels * math.prod(latent) * 4
    one = denoiser.footprint(pictures * max(views - apart, apart), latent)
    every = denoiser.footprint(pictures * views, latent)
    decoding = codec.footprint(min(pictures, together(codec, size, "decode")), whole, "decode")
    encoding = codec.footprint(1, whole, "encode") if starts else Work()
    images = PICTURES * pictures * codec.data_channels * math.prod(whole) * 4
    needed = states + max(one.bytes, decoding.bytes + images, encoding.bytes)
    coding = codec.footprint(pictures, whole, "decode").flops + starts * encoding.flops
    operations = every.flops * evaluations + coding
    found = _available(denoiser.device, parts)
    rows = pictures * views
    return Estimate(pictures, size, steps, evaluations, rows, needed, found, operations / _rate(denoiser.device))


def estimate_codec(codec: Codec, pictures: int, size: Size, direction: Direction) -> Estimate:
    """The estimate for one encoding or decoding of pictures of (height, width), or of other data."""
    whole = padded(size, codec)
    whole_work = codec.footprint(pictures, whole, direction)
    group = codec.footprint(min(pictures, together(codec, size, direction)), whole, direction)
    needed = group.bytes + PICTURES * pictures * codec.data_channels * math.prod(whole) * 4
    room_left = _available(codec.device, [codec])
    return Estimate(pictures, size, 0, 0, pictures, needed, room_left, whole_work.flops / _rate(codec.device))


def together(codec: Codec, size: Size, direction: Direction) -> int:
    """Pictures that are passed to a codec in one batch, limited by `GROUP`; at least 1."""
    one = codec.footprint(1, padded(size, codec), direction).bytes
    return max(1, GROUP // one) if one else MAX_NUMBER


def check_estimate(estimate: Estimate, where: str, allow_large: bool) -> None:
    """Refuse a run that does not fit in memory or is unreasonably large, unless `allow_large`.

    Raises:
        InputError: `too-much-work`, with the estimate.
    """
    if allow_large:
        return
    problem = _problem(estimate)
    if problem is not None:
        fits = "fewer pictures at once, smaller ones, or allow_large=True (--yes) if it is intended"
        if not estimate.fits:
            fits = f"fewer pictures at once, smaller ones, a tiled codec, bfloat16, {fits.partition('ones, ')[2]}"
        raise InputError("too-much-work", f"{estimate}: {problem}", where=where, fits=fits)


def _problem(estimate: Estimate) -> str | None:
    if estimate.pictures > MAX_BATCH:
        return f"more than {MAX_BATCH} pictures in one call"
    if estimate.steps > MAX_STEPS:
        return f"more than {MAX_STEPS} steps"
    if math.prod(estimate.size[-2:]) > MAX_PIXELS:
        return f"pictures of more than {MAX_PIXELS} pixels"
    if estimate.pictures * math.prod(estimate.size[:-2]) > MAX_BATCH:
        return f"more than {MAX_BATCH} frames in one call"
    if not estimate.fits and estimate.room is not None:
        return f"{shown_bytes(estimate.room.bytes)} of {estimate.room.what} are available besides the weights"
    if estimate.seconds > MAX_DAYS * DAY:
        return f"more than {MAX_DAYS} days"
    return None


def count(number: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def shown_bytes(number: int) -> str:
    """A size in MiB, GiB or TiB."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number / 2**20:.3g} MiB"


def _available(device: torch.device, parts: Iterable[Part]) -> Room | None:
    """The device's memory minus the resident weights, which a GPU's free memory already excludes."""
    found = room(device)
    if found is None or device.type == "cuda":
        return found
    return found._replace(bytes=max(0, found.bytes - sum(_weights(part) for part in parts if part.placed is None)))


_sizes: WeakKeyDictionary[Part, tuple[torch.dtype, int]] = WeakKeyDictionary()


def _weights(part: Part) -> int:
    """Bytes of a part's tensors, cached per dtype because a network has thousands of tensors."""
    known = _sizes.get(part)
    if known is None or known[0] != part.dtype:
        held = {t.data_ptr(): t.nbytes for t in chain(part.parameters(), part.buffers()) if not t.is_meta}
        known = _sizes[part] = (part.dtype, sum(held.values()))
    return known[1]


def _rate(device: torch.device) -> float:
    return GPU_RATE if device.type == "cuda" else CPU_RATE * torch.get_num_threads()
