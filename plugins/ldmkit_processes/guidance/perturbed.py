"""Guidance away from a perturbed network: perturbed attention, smoothed energy, skipped layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import CompositionError, Evaluate, Example, Guidance, Perturbed, Tap, View, suggest
from ldmkit.bounds import MAX_SCALE, Scale
from ldmkit_processes.guidance.blur import blurred, map_size
from ldmkit_processes.guidance.cfg import EVERYTHING
from ldmkit_processes.guidance.spaces import Space, check_droppable, rescaled_in
from ldmkit_processes.guidance.timed import Timed

ATTENTION = "attn."
LINEAR = "linear."


class Disturbing(Timed, ABC):
    """CFG, plus strength (conditional - perturbed): away from the estimate of the perturbed network.

    No condition is required if the scale of CFG is 1.

    Args:
        scale: s of classifier-free guidance; 1 leaves it out.
        strength: p, weight of the difference to the perturbed view; 0 leaves it out.
        layers: where the network is perturbed: paths of attentions, or of modules that contain them ("mid",
            "up.0.attn.1").
        disturbed_start, disturbed_end: the part of the run, in fractions of its steps, in which it is perturbed.
        rescale, space: as of `cfg`.
        interval, start, end: when any of it acts.
    """

    scale: Scale = 7.5
    strength: float = Field(default=3.0, ge=0, le=MAX_SCALE)
    layers: tuple[str, ...] = ("mid",)
    disturbed_start: float = Field(default=0.0, ge=0, le=1)
    disturbed_end: float = Field(default=1.0, ge=0, le=1)
    rescale: float = Field(default=0.0, ge=0, le=1)
    space: Space = "x0"

    @abstractmethod
    def tap(self) -> Tap:
        """The tap that perturbs a port, as a value."""

    @abstractmethod
    def ports(self, path: str, names: Sequence[str]) -> list[str]:
        """The ports, among `names`, at which the attention at a path is perturbed."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises CompositionError: `unknown-layer`; or there is no condition to leave out for a scale other than 1."""
        check_droppable(self.scale, evaluate.names)
        if self.rests(evaluate, sigma):
            return evaluate(x, sigma, EVERYTHING)[0]
        asked: list[View | Perturbed] = [EVERYTHING]
        if self.scale != 1:
            asked.append(frozenset(evaluate.names))
        if self._disturbs(evaluate, sigma):
            asked.append(Perturbed(taps=self._taps(evaluate)))
        conditional, *others = evaluate(x, sigma, *asked)
        guided = conditional
        if self.scale != 1:
            guided = torch.lerp(others[0], conditional, self.scale)
        if isinstance(asked[-1], Perturbed):
            guided = guided + self.strength * (conditional - others[-1])
        if not self.rescale or guided is conditional:
            return guided
        return rescaled_in(self.space, evaluate, x, sigma, guided, conditional, self.rescale)

    def views(self, names: Sequence[str]) -> int:
        return (1 if self.scale == 1 or not names else 2) + self.perturbed(names)

    def perturbed(self, names: Sequence[str]) -> int:
        return int(self.strength > 0)

    def plain(self, scale: float) -> Guidance:
        timed = {"interval": None, "start": 0.0, "end": 1.0}
        return self.model_copy(update={"scale": scale, "strength": 0.0, "rescale": 0.0, **timed})

    def neutral(self) -> Guidance:
        return self.model_copy(update={"scale": 1.0, "strength": 0.0})

    def _disturbs(self, evaluate: Evaluate, sigma: float) -> bool:
        within = self.model_copy(update={"start": self.disturbed_start, "end": self.disturbed_end})
        return self.strength > 0 and not within.rests(evaluate, sigma)

    def _taps(self, evaluate: Evaluate) -> tuple[tuple[str, Tap], ...]:
        """Ports and their taps.

        Raises:
            CompositionError: `unknown-layer`: the network has no self-attention there.
        """
        paths = [name.removeprefix(ATTENTION) for name in evaluate.ports if name.startswith(ATTENTION)]
        names, tap = tuple(evaluate.ports), self.tap()
        found: dict[str, Tap] = {}
        for layer in self.layers:
            inside = [path for path in paths if path == layer or path.startswith(f"{layer}.")]
            if not inside:
                what = f"the network has no self-attention with a port at {layer!r}"
                raise CompositionError("unknown-layer", what, where="guidance.layers", fits=suggest(layer, paths))
            found |= {port: tap for path in inside for port in self.ports(path, names)}
        return tuple(found.items())


@dataclass(frozen=True)
class Identity:
    """Every position attends only to itself: the attention's result is its values."""

    def __call__(self, value: Tensor, frame: Any) -> Tensor:
        attended: Tensor = frame.scratch["value"]
        return attended.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Blurred:
    """Attention with blurred queries; `deviation` in positions of the map, None: each is replaced by the mean."""

    deviation: float | None

    def __call__(self, value: Tensor, frame: Any) -> Tensor:
        wide = torch.float32 if value.element_size() < 4 else value.dtype
        query, key, values = (frame.scratch[name].to(wide) for name in ("query", "key", "value"))
        size = map_size((int(frame.x.shape[-2]), int(frame.x.shape[-1])), int(query.shape[2]))
        smooth = blurred(query, size, self.deviation)
        found = torch.nn.functional.scaled_dot_product_attention(smooth, key, values)
        return found.transpose(1, 2).flatten(2).to(value.dtype)


@dataclass(frozen=True)
class Nothing:
    """Zero output: a branch adds nothing."""

    def __call__(self, value: Tensor, frame: Any) -> Tensor:
        return torch.zeros_like(value)


class PAG(Disturbing):
    """Perturbed attention guidance (Ahn et al. 2024, equation 14): chosen self-attentions become the identity.

    Args:
        scale: s of classifier-free guidance; 1 leaves it out.
        strength: p, weight of the difference to the perturbed view; 0 leaves it out.
        layers: where the network is perturbed: paths of attentions, or of modules that contain them ("mid",
            "up.0.attn.1").
        disturbed_start, disturbed_end: the part of the run, in fractions of its steps, in which it is perturbed.
        rescale, space: as of `cfg`.
        interval, start, end: when any of it acts.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"scale": 1.0, "strength": 2.0, "layers": ("mid", "up.0")}),
        Example({"scale": 4.0, "strength": 0.0, "rescale": 0.5}),
        Example({"scale": 4.0, "disturbed_start": 0.2, "disturbed_end": 0.6, "rescale": 0.5, "space": "output"}),
        Example({"scale": 4.0, "interval": (0.5, 2.0), "start": 0.1, "end": 0.9}),
    )

    def tap(self) -> Tap:
        return Identity()

    def ports(self, path: str, names: Sequence[str]) -> list[str]:
        return [ATTENTION + path]


class SEG(Disturbing):
    """Smoothed energy guidance (Hong 2024, algorithm 1): the queries of chosen self-attentions are blurred.

    Args:
        blur: standard deviation of the Gaussian, in positions of the attention's map; None: all queries are replaced by
            their mean, the limit of a wide Gaussian.
        scale, strength, layers, disturbed_start, disturbed_end, rescale, space, interval, start, end: as of `pag`.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"scale": 1.0, "blur": 1.0, "strength": 2.0, "layers": ("mid", "up.0")}),
        Example({"scale": 4.0, "disturbed_start": 0.2, "disturbed_end": 0.6, "rescale": 0.5, "space": "output"}),
        Example({"scale": 4.0, "interval": (0.5, 2.0), "start": 0.1, "end": 0.9}),
    )
    blur: float | None = Field(default=None, gt=0, le=1000)

    def tap(self) -> Tap:
        return Blurred(self.blur)

    def ports(self, path: str, names: Sequence[str]) -> list[str]:
        return [ATTENTION + path]


class SLG(Disturbing):
    """Skip-layer guidance (Stability AI 2024, with SD 3.5): chosen transformer blocks add nothing.

    Args:
        scale, strength, layers, disturbed_start, disturbed_end, rescale, space, interval, start, end: as of `pag`. It
            was published with a strength of 2.8 from 0.01 to 0.2 of the run.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"scale": 1.0, "strength": 2.0, "layers": ("mid", "up.0")}),
        Example({"scale": 4.0, "disturbed_start": 0.2, "disturbed_end": 0.6, "rescale": 0.5, "space": "output"}),
        Example({"scale": 4.0, "interval": (0.5, 2.0), "start": 0.1, "end": 0.9, "disturbed_end": 0.8}),
    )
    strength: float = Field(default=2.8, ge=0, le=MAX_SCALE)
    disturbed_start: float = Field(default=0.01, ge=0, le=1)
    disturbed_end: float = Field(default=0.2, ge=0, le=1)

    def tap(self) -> Tap:
        return Nothing()

    def ports(self, path: str, names: Sequence[str]) -> list[str]:
        """Those of the linear layers that end a branch: what a block adds is the sum of their outputs."""
        own = f"{LINEAR}{path}."
        last = ("self_attn.to_out", "cross_attn.to_out", "ff.out", "out")
        return [own + layer for layer in last if own + layer in names]
