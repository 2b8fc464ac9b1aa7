"""Two networks for one process: one for noisy states, another for those of the last timesteps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import CompositionError, Context, Denoiser, Example, PartSpec, Signal, Value, Work, get
from ldmkit_denoisers.config import SMALL
from ldmkit_denoisers.wrapped import outer_fields

_FAMILIES = ("attn", "self", "block", "cross", "linear", "conv")
"""Families of ports that are named by the path of a module."""

_UNET = {"type": "unet", "config": {**SMALL, "in_channels": 6}}


class TwoNetworksConfig(Value):
    """
    Args:
        first: the network for the other timesteps, `{type, config}`.
        last: the network for timesteps below `below`, with the same channels and slots.
        below: 1 is timestep 0 alone: the last step of a run.
    """

    first: PartSpec
    last: PartSpec
    below: float = Field(default=1.0, gt=0)


@dataclass
class TwoContexts(Context):
    """The contexts of both networks."""

    first: Context | None = None
    last: Context | None = None


class TwoNetworks(Denoiser):
    """F of `first`, or of `last` where the timestep is small: Karlo's super-resolution, whose last step has its own.

    Ports are those of attentions and layers of both: `linear.first.<path>`, `linear.last.<path>`. State-dict names
    begin with `first.` and `last.` too.
    """

    Config = TwoNetworksConfig
    config: TwoNetworksConfig
    examples = (Example({"first": _UNET, "last": _UNET, "below": 500.0}),)
    plans = ("eager", "auto")
    plan_makers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: TwoNetworksConfig | None = None):
        super().__init__(config)
        self.first = _built(self.config.first)
        self.last = _built(self.config.last)
        for name in ("channels", "slots", "latent_axes"):
            ours, theirs = getattr(self.first, name), getattr(self.last, name)
            if ours != theirs:
                what = f"the two networks differ in {name}: {ours} and {theirs}"
                raise CompositionError("two-networks", what, where="last", fits=f"{name} of the first")
        self.channels, self.slots, self.latent_axes = self.first.channels, self.first.slots, self.first.latent_axes
        self.smallest = max(self.first.smallest, self.last.smallest)
        self.ports = {
            f"{family}.{way}.{path}": port
            for way in ("first", "last")
            for family, _, path in (name.partition(".") for name in self._of(way).ports)
            if family in _FAMILIES
            for port in (self._of(way).ports[f"{family}.{path}"],)
        }
        self.regions = tuple(dict.fromkeys((*self.first.regions, *self.last.regions)))

    def prepare(self, signals: Mapping[str, Signal]) -> TwoContexts:
        """Both networks' `prepare`."""
        return TwoContexts(signals, first=self.first.prepare(signals), last=self.last.prepare(signals))

    def adapted(self, context: Context) -> Context:
        """Both networks' `adapted`."""
        if isinstance(context, TwoContexts):
            context.first = self.first.adapted(_within(context, "first"))
            context.last = self.last.adapted(_within(context, "last"))
        return context

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F. Where the time is not known on the host, as in training, both networks compute all rows.

        Raises:
            CompositionError: the context is another network's.
        """
        if not isinstance(context, TwoContexts) or context.first is None:
            raise CompositionError("foreign-context", "the context was not prepared by this denoiser")
        if context.time is not None:
            way = "last" if context.time < self.config.below else "first"
            return self._of(way)(x, t, _within(context, way), sigma)  # type: ignore[no-any-return]
        early, late = (self._of(way)(x, t, _within(context, way), sigma) for way in ("first", "last"))
        return torch.where((t < self.config.below).view(-1, *[1] * (x.ndim - 1)), late, early)

    def footprint(self, rows: int, size: tuple[int, ...]) -> Work:
        """That of the first network, which makes all steps but the last."""
        return self.first.footprint(rows, size)

    def _of(self, way: str) -> Denoiser:
        return self.first if way == "first" else self.last


def _built(spec: PartSpec) -> Denoiser:
    made: Denoiser = get("denoiser", spec.type)(spec.config)
    return made


def _within(context: TwoContexts, way: str) -> Context:
    """A network's context, with what the run and its adapters have put into the outer one."""
    inner = context.first if way == "first" else context.last
    assert inner is not None
    return replace(inner, **outer_fields(context))
