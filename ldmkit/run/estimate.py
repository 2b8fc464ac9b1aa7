"""What a run will take, before it starts: network calls, memory, a class of time; and the bounds that it must keep.

Nothing is run for it. Memory is what the parts say of themselves (`footprint`) and the tensors that a run holds; parts
that say nothing count as nothing, and neither do adapters, conditioners and gradients of a guidance. So it is a run's
least rather than its most: a run within the machine's memory is never refused.
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
"""Tensors of the latents' size that a run holds: state, noise, the last step, and what a sampler remembers."""
PICTURES = 4
"""Tensors of the pictures' size in float32 that decoding holds: what came out, as floats, in [0, 1], on the CPU."""
GROUP = 2**31
"""Bytes of activations that pictures of a batch may take together in the codec: large ones are no faster together."""
CPU_RATE, GPU_RATE = 4e10, 4e13
"""Operations a second of one core and of a GPU: 30 to 60 GFLOP/s were measured with U-Nets on one core of an EPYC."""

DAY = 86_400
_NOUNS = {0: "vector", 2: "picture", 3: "video"}
_CLASSES = ((60, "seconds"), (3600, "minutes"), (DAY, "hours"), (30 * DAY, "days"), (365 * DAY, "months"))


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Args:
        pictures, size: of the run, (height, width) in pixels; of other data one number an axis.
        steps: transitions of the sampler.
        evaluations: calls of the network.
        rows: batch of each of them.
        bytes: of memory at the run's peak, weights not counted; at least.
        room: what the device has for them, weights taken off; None where it is not known.
        seconds: by operations counted and a machine's usual speed: good for a class, no more; 0: not known.
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
        """Its class: "seconds", "minutes", "hours", "days", "months", "years"; "unknown"."""
        if not self.seconds:
            return "unknown"
        return next((name for limit, name in _CLASSES if self.seconds < limit), "years")

    @property
    def fits(self) -> bool:
        """Whether the memory that it takes is there, as far as that is known."""
        return self.room is None or self.bytes <= self.room.bytes

    def of_run(self, steps: int, evaluations: int) -> Estimate:
        """The same with another sampler, or other steps."""
        seconds = self.seconds * evaluations / max(self.evaluations, 1)
        return replace(self, steps=steps, evaluations=evaluations, seconds=seconds)

    def repeated(self, runs: int, held: int = 0) -> Estimate:
        """As many runs, one after the other, with `held` bytes of what they leave."""
        total = self.evaluations * runs
        return replace(self, evaluations=total, bytes=self.bytes + held, seconds=self.seconds * runs)

    def __str__(self) -> str:
        shape = count(self.pictures, _NOUNS.get(len(self.size), "sample"))
        shape += f" of {shown_size(self.size)}" if self.size else ""
        calls = f", {count(self.evaluations, 'evaluation')} of {count(self.rows, 'row')}" if self.evaluations else ""
        took = "" if self.time == "unknown" else f", {self.time} of work"
        return f"{shape}{calls}, about {shown_bytes(self.bytes)} of memory{took}"


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
    """A run of `pictures`, the network reading `views` rows for each; `starts` pictures are encoded before.

    Args:
        apart: those of the rows that disturbed networks read, in calls of their own.
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
    found = _left(denoiser.device, parts)
    rows = pictures * views
    return Estimate(pictures, size, steps, evaluations, rows, needed, found, operations / _rate(denoiser.device))


def estimate_codec(codec: Codec, pictures: int, size: Size, direction: Direction) -> Estimate:
    """One encoding or decoding of pictures of (height, width), or of other data."""
    whole = padded(size, codec)
    whole_work = codec.footprint(pictures, whole, direction)
    group = codec.footprint(min(pictures, together(codec, size, direction)), whole, direction)
    needed = group.bytes + PICTURES * pictures * codec.data_channels * math.prod(whole) * 4
    room_left = _left(codec.device, [codec])
    return Estimate(pictures, size, 0, 0, pictures, needed, room_left, whole_work.flops / _rate(codec.device))


def together(codec: Codec, size: Size, direction: Direction) -> int:
    """Pictures that go through a codec at a time: more than one only where all of them take no more than `GROUP`."""
    one = codec.footprint(1, padded(size, codec), direction).bytes
    return max(1, GROUP // one) if one else MAX_NUMBER


def check_estimate(estimate: Estimate, where: str, allow_large: bool) -> None:
    """Refuse a run that the machine has no memory for, or that nobody means.

    Raises:
        InputError: `too-much-work`, with the estimate.
    """
    if allow_large:
        return
    problem = _problem(estimate)
    if problem is not None:
        fits = "fewer pictures at once, smaller ones, or allow_large=True (--yes) if it is meant"
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
        return f"{shown_bytes(estimate.room.bytes)} are left of {estimate.room.what} beside the weights"
    if estimate.seconds > MAX_DAYS * DAY:
        return f"more than {MAX_DAYS} days"
    return None


def count(number: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def shown_bytes(number: int) -> str:
    """In a unit of which there are few."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number / 2**20:.3g} MiB"


def _left(device: torch.device, parts: Iterable[Part]) -> Room | None:
    """The device's memory without the weights that are always there; free memory of a GPU has lost them already."""
    found = room(device)
    if found is None or device.type == "cuda":
        return found
    return found._replace(bytes=max(0, found.bytes - sum(_weights(part) for part in parts if part.placed is None)))


_seen: WeakKeyDictionary[Part, tuple[torch.dtype, int]] = WeakKeyDictionary()


def _weights(part: Part) -> int:
    """Bytes of a part's tensors; looked up once for each dtype, for a network has thousands of them."""
    known = _seen.get(part)
    if known is None or known[0] != part.dtype:
        held = {t.data_ptr(): t.nbytes for t in chain(part.parameters(), part.buffers()) if not t.is_meta}
        known = _seen[part] = (part.dtype, sum(held.values()))
    return known[1]


def _rate(device: torch.device) -> float:
    return GPU_RATE if device.type == "cuda" else CPU_RATE * torch.get_num_threads()
