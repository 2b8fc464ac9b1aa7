"""ControlNet (Zhang et al. 2023): a copy of the U-Net's first half that reads a hint and adds to its skips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import torch
from ldmkit_denoisers.conditions import Projected, checked_plane, unet_slots
from ldmkit_denoisers.config import SMALL, UNetConfig, mid_level, skip_widths
from ldmkit_denoisers.encoder import Encoder
from ldmkit_denoisers.ported import activate, zeroed
from pydantic import Field
from torch import Tensor, nn

from ldmkit import (
    Adapter,
    CompositionError,
    Context,
    Denoiser,
    Example,
    Frame,
    InputError,
    Plane,
    Run,
    Slot,
    Tap,
)
from ldmkit.bounds import MAX_LEVELS, SignedScale, Width
from ldmkit_adapters.windows import Window, check_tunable

GUESS_DECAY = 0.825
"""Guess mode weighs residual i of n by this to the power of n - 1 - i: the deepest counts in full."""

PLANE = {**SMALL, "in_channels": 5, "attention": ("none", "self")}
CROSS = {**SMALL, "attention": ("none", "cross"), "context_dim": 6, "vector": "mlp", "vector_dim": 4}
"""U-Nets for examples."""

OPTIONS = ("scale", "start", "end", "guess", "guess_weights", "pooled", "only_mid")
"""Fields that change nothing of the network."""


class ControlNetConfig(Window):
    """A ControlNet.

    Args:
        unet: of the network it is a copy of; only its first half is built.
        hint_channels: of the hint, a picture with values in [0, 1].
        hint_widths: channels of the hint's encoder; every one after the first halves the size.
        scale: factor of all residuals.
        start, end: the part of the run, in fractions of its steps, in which it acts.
        guess: the hint is dropped with the prompt, and shallow residuals are weighed down.
        guess_weights: by powers of 0.825, as the original does, or by steps from 0.1 to 1 of equal ratio, as diffusers.
        pooled: the hint is dropped with the prompt, and residuals are averaged over the map (ControlNet 1.1 Shuffle).
        only_mid: only the middle's residual.
        order: of the hint's colours that the weights were trained with; hints are RGB all the same.
    """

    unet: UNetConfig
    hint_channels: Width = 3
    hint_widths: tuple[Width, ...] = Field((16, 32, 96, 256), min_length=1, max_length=MAX_LEVELS)
    scale: SignedScale = 1.0
    guess: bool = False
    guess_weights: Literal["powers", "logspace"] = "powers"
    pooled: bool = False
    only_mid: bool = False
    order: Literal["rgb", "bgr"] = "rgb"

    def weights(self, count: int) -> list[float]:
        """The factor of each of `count` residuals, the middle's last, without `scale`."""
        if not self.guess or self.pooled or self.only_mid:
            return [1.0] * count
        if self.guess_weights == "logspace":
            return [float(weight) for weight in torch.logspace(-1, 0, count)]  # rounded as diffusers rounds them
        return [GUESS_DECAY ** (count - 1 - i) for i in range(count)]


class HintEncoder(nn.Module):
    """3x3 convolutions with SiLU between them, from the picture to the latent grid; the last is zero at first."""

    def __init__(self, channels: int, widths: tuple[int, ...], outputs: int):
        super().__init__()
        convs = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for before, after in pairwise(widths):
            convs += [nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, after, 3, padding=1, stride=2)]
        self.convs = nn.ModuleList([*convs, zeroed(nn.Conv2d(widths[-1], outputs, 3, padding=1))])

    def forward(self, hint: Tensor) -> Tensor:
        """(B, channels, f h, f w) -> (B, outputs, h, w) with f = 2 ** (number of widths - 1)."""
        for conv in self.convs[:-1]:
            hint = activate(conv(hint))
        return self.convs[-1](hint)  # type: ignore[no-any-return]


@dataclass
class ControlState:
    """What a ControlNet keeps for a run: its projections, the encoded hint (B, C, h, w), the plane its copy of the
    network may want, which rows it acts on (B,1,1,1) or None for all, and the run.
    """

    control: ControlNet
    projected: Projected
    hint: Tensor
    plane: Tensor | None = None
    rows: Tensor | None = None
    run: Run | None = None

    def crop(self, top: int, left: int, height: int, width: int) -> ControlState:
        """The state for a window of the latents, in latent pixels."""
        window = (..., slice(top, top + height), slice(left, left + width))
        return replace(self, hint=self.hint[window], plane=None if self.plane is None else self.plane[window])


@dataclass(frozen=True)
class _Compute:
    """Tap at `input`: computes the residuals of this forward, with the ControlNet that prepared the run."""

    name: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        state = frame.context.adapters.get(self.name)
        if isinstance(state, ControlState) and state.control.acts(state, frame.sigma):
            frame.scratch[self.name] = state.control(frame.x, frame.t, state)
        return value


@dataclass(frozen=True)
class _Add:
    """Tap at `skip.<i>` or `mid`: adds residual `index` (-1: the middle's)."""

    name: str
    index: int

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        residuals = frame.scratch.get(self.name)
        residual = None if residuals is None else residuals[self.index]
        return value if residual is None else value + residual.to(value.dtype)


class ControlNet(Encoder, Adapter):
    """Reads the noisy latents, the conditions and a hint; adds a residual to every skip and to the middle's output.

    Slot `hint`: a plane with `hint_channels` at picture resolution, values in [0, 1]. It stays out of rows without a
    hint, given none or dropped by guidance. Several at once add up. State-dict names: those of the U-Net's first half,
    hint.convs.<i>, zero.<i>, zero_mid.
    """

    Config = ControlNetConfig
    config: ControlNetConfig
    options: ClassVar[tuple[str, ...]] = OPTIONS
    """Fields of the config that `tuned` may change."""
    examples = (
        Example({"unet": PLANE, "hint_channels": 2, "hint_widths": (4,)}, denoiser={"type": "unet", "config": PLANE}),
        Example(  # not to be trained so: the other residuals, which are not given then, would learn nothing
            {"unet": PLANE, "hint_channels": 2, "hint_widths": (4,), "only_mid": True},
            trained=False,
            denoiser={"type": "unet", "config": PLANE},
        ),
        Example(
            {"unet": CROSS, "hint_channels": 2, "hint_widths": (4, 4), "scale": 0.5, "guess": True},
            denoiser={"type": "unet", "config": CROSS},
            plane_factor=2,
        ),
    )

    def __init__(self, config: ControlNetConfig | None = None):
        Adapter.__init__(self, config)
        unet = self.config.unet
        self.build_encoder(unet)
        self.hint = HintEncoder(self.config.hint_channels, self.config.hint_widths, unet.widths[0])
        self.zero = nn.ModuleList(zeroed(nn.Conv2d(width, width, 1)) for width in skip_widths(unet))
        middle = mid_level(unet).width
        self.zero_mid = zeroed(nn.Conv2d(middle, middle, 1))
        self.slots = {"hint": Slot("plane", self.config.hint_channels, required=True)}
        self.channels, self.reads = unet.channels, unet_slots(unet)

    @classmethod
    def from_denoiser(cls, denoiser: Denoiser, **options: Any) -> ControlNet:
        """A new ControlNet with the weights of a U-Net's first half; it changes nothing until it is trained.

        Args:
            options: fields of `ControlNetConfig`.

        Raises:
            CompositionError: the denoiser is not a U-Net.
        """
        if not isinstance(denoiser, Encoder):
            raise CompositionError("not-a-unet", f"{type(denoiser).__name__} has no first half to copy", fits="a UNet")
        control = cls(ControlNetConfig.of({"unet": denoiser.unet, **options})).to(denoiser.device, denoiser.dtype)
        theirs = denoiser.state_dict()
        control.load_state_dict({key: theirs.get(key, own) for key, own in control.state_dict().items()})
        return control

    def taps(self, name: str) -> Mapping[str, Tap]:
        """At `input`, `mid`, and every `skip.<i>`."""
        skips = {f"skip.{i}": _Add(name, i) for i in range(len(self.zero))}
        return {"input": _Compute(name), **skips, "mid": _Add(name, -1)}

    def adds(self, name: str) -> Mapping[str, int]:
        skips = {f"skip.{i}": width for i, width in enumerate(skip_widths(self.config.unet))}
        return {**skips, "mid": mid_level(self.config.unet).width}

    def prepare(self, context: Context, name: str) -> ControlState | None:
        """Encode the hint and project the conditions, once per run; None without a hint.

        Raises:
            CompositionError: the hint is not a plane, or a condition of the network is missing.
        """
        hint = context.signals.get(f"{name}.hint")
        if hint is None:
            return None
        if not isinstance(hint, Plane) or hint.value.shape[1] != self.config.hint_channels:
            raise CompositionError("wrong-signal", "the hint does not fit", fits=f"{self.slots['hint']}")
        rows = None
        present = context.present.get(f"{name}.hint")
        dtype = self.conv_in.weight.dtype
        if present is not None and not bool(present.all()):
            rows = present.to(dtype).view(-1, 1, 1, 1)
        picture = hint.value.flip(1) if self.config.order == "bgr" else hint.value
        return self.state(context, self.hint(picture.to(dtype)), rows, self.project(context.signals, context))

    def state(self, context: Context, hint: Tensor, rows: Tensor | None, projected: Projected) -> ControlState:
        """What a run keeps of an encoded hint (B, C, h, w)."""
        return ControlState(self, projected, hint, checked_plane(self.unet, context.signals), rows, context.run)

    @property
    def strength(self) -> float:
        """The factor of all residuals."""
        return self.config.scale

    def drops(self, slot: str) -> bool:
        return self.config.guess or self.config.pooled

    def tuned(self, **changes: Any) -> Self:
        """See `Adapter.tuned`: the options that may change are those of the run."""
        check_tunable(self.config, changes, self.options)
        return super().tuned(**changes)

    def acts(self, state: ControlState, sigma: float | None) -> bool:
        """Whether the step at `sigma` lies in [start, end]; always where run or sigma are unknown."""
        return state.run is None or sigma is None or self.config.holds(state.run, sigma)

    def idle(self, run: Run) -> str | None:
        """See `Adapter.idle`."""
        if self.config.scale == 0:
            return "its scale is 0"
        return self.config.outside(run)

    def forward(self, x: Tensor, t: Tensor, state: ControlState) -> list[Tensor | None]:
        """Residuals for every skip in the order they are made (None with `only_mid`), then for the middle, scaled.

        x (B, channels, h, w) and t (B,) are what the denoiser gets.

        Raises:
            InputError: the hint has another size than the picture.
        """
        h = x.to(self.conv_in.weight.dtype)
        if h.shape[2:] != state.hint.shape[2:]:
            got, want = tuple(state.hint.shape[2:]), tuple(h.shape[2:])
            raise InputError("hint-size", f"the hint is for latents {got}, these are {want}", where="hint")
        if state.plane is not None:
            h = torch.cat([h, state.plane.to(h.dtype)], dim=1)
        frame = Frame(x, t, Context({}))
        way = self.encode(self.conv_in(h) + state.hint, self.embed(t, state.projected), frame, state.projected)
        h, skips = way.h, way.skips
        if self.config.only_mid:
            return [*[None] * len(skips), self._scaled(self.zero_mid(h), 1.0, state)]
        outputs = [*(zero(s) for zero, s in zip(self.zero, skips, strict=True)), self.zero_mid(h)]
        weights = self.config.weights(len(outputs))
        return [self._scaled(out, weight, state) for out, weight in zip(outputs, weights, strict=True)]

    def _scaled(self, residual: Tensor, weight: float, state: ControlState) -> Tensor:
        weight *= self.strength
        if self.config.pooled:
            residual = residual.mean(dim=(2, 3), keepdim=True)
        residual = residual if weight == 1.0 else residual * weight
        return residual if state.rows is None else residual * state.rows
