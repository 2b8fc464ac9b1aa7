"""T2I-Adapter (Mou et al. 2023): a small network that reads a hint once a run and adds to the way down of a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch.nn.functional as F
from ldmkit_denoisers.config import SMALL
from ldmkit_denoisers.ported import zeroed
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import Adapter, CompositionError, Context, Example, Frame, InputError, Plane, Run, Slot, SpecError, Tap
from ldmkit.bounds import MAX_LEVELS, SignedScale, Width
from ldmkit_adapters.windows import Window, check_tunable

HOST = {"type": "unet", "config": {**SMALL, "widths": (8, 16, 16), "attention": ("none", "self", "self")}}
"""A denoiser for examples."""


class T2IConfig(Window):
    """A T2I-Adapter.

    Args:
        channels: of the hint, a picture with values in [0, 1].
        unshuffle: side of the squares of pixels that become channels at first.
        widths: channels of the features, one a stage.
        pools: which stages halve the map first.
        ports: where the feature of each stage is added.
        blocks: residual blocks a stage.
        light: a stage works in a quarter of its channels, between two 1x1 convolutions, and its blocks' second
            convolutions are 3x3 rather than 1x1.
        scale: factor of all features.
        start, end: the part of the run, in fractions of its steps, in which it acts.
    """

    channels: Width = 3
    unshuffle: int = Field(8, ge=1, le=64)
    widths: tuple[Width, ...] = Field((320, 640, 1280, 1280), min_length=1, max_length=MAX_LEVELS)
    pools: tuple[bool, ...] = (False, True, True, True)
    ports: tuple[str, ...] = ("down.0", "down.1", "down.2", "down.3")
    blocks: int = Field(2, ge=1, le=64)
    light: bool = False
    scale: SignedScale = 1.0

    @model_validator(mode="after")
    def _one_a_stage(self) -> Self:
        for name in ("pools", "ports"):
            if (count := len(getattr(self, name))) != len(self.widths):
                raise SpecError("level-count", f"{name} has {count} entries for {len(self.widths)} stages", where=name)
        if len(set(self.ports)) < len(self.ports):
            raise SpecError("invalid", "two features are added at one port", where="ports", fits="different ports")
        return self


class ReluBlock(nn.Module):
    """3x3 convolution, ReLU, convolution, and the residual."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_2 = zeroed(nn.Conv2d(width, width, kernel, padding=kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_2(F.relu(self.conv_1(x)))  # type: ignore[no-any-return]


class T2IStage(nn.Module):
    """Pooling, a 1x1 convolution where the width changes, residual blocks; made from `inputs` channels."""

    def __init__(self, config: T2IConfig, index: int, inputs: int):
        super().__init__()
        width, light = config.widths[index], config.light
        inner = max(width // 4, 1) if light else width
        self.pools = config.pools[index]
        self.in_conv = nn.Conv2d(inputs, inner, 1) if light or inputs != width else None
        if self.in_conv is not None:
            _silence(self.in_conv, weight=light and index == 0)
        self.blocks = nn.ModuleList(ReluBlock(inner, 3 if light else 1) for _ in range(config.blocks))
        self.out_conv = nn.Conv2d(inner, width, 1) if light else None
        if self.out_conv is not None:
            _silence(self.out_conv, weight=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.pools:  # rounds up, as the U-Net's own convolutions do
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        if self.in_conv is not None:
            x = self.in_conv(x)
        for block in self.blocks:
            x = block(x)
        return x if self.out_conv is None else self.out_conv(x)


def _silence(conv: nn.Conv2d, weight: bool) -> None:
    """Take away what a convolution gives for zeros, or for everything, so that a new adapter adds nothing."""
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    if weight:
        nn.init.zeros_(conv.weight)


@dataclass
class T2IState:
    """What a run keeps: the adapter, the scaled features by port, and the run."""

    adapter: T2IAdapter
    features: Mapping[str, Tensor] = field(default_factory=dict)
    run: Run | None = None

    def crop(self, top: int, left: int, height: int, width: int) -> T2IState:
        """The state for a window of the latents, in latent pixels.

        Raises:
            CompositionError: `not-croppable`: the window begins between two pixels of a feature.
        """
        cut = {}
        for port, feature in self.features.items():
            step = self.adapter.steps[port]
            if top % step or left % step:
                what = f"a patch begins at {(top, left)}, between two pixels of the feature at {port!r}"
                raise CompositionError("not-croppable", what, where="stride", fits=f"multiples of {step}")
            rows, columns = -(-height // step), -(-width // step)
            cut[port] = feature[..., top // step : top // step + rows, left // step : left // step + columns]
        return replace(self, features=cut)


@dataclass(frozen=True)
class _Adds:
    """Tap at a port of the way down or the middle: adds the feature that is for it."""

    name: str
    port: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        state = frame.context.adapters.get(self.name)
        feature = state.features.get(self.port) if isinstance(state, T2IState) else None
        if feature is None or not state.adapter.acts(state, frame.sigma):
            return value
        if feature.shape[2:] != value.shape[2:]:
            got, want = tuple(feature.shape[2:]), tuple(value.shape[2:])
            what = f"the hint gives a feature of {got} at {self.port!r}, where the network has {want}"
            raise InputError("hint-size", what, where=self.name, fits="a hint of the picture's size")
        return value + feature.to(value.dtype)


class T2IAdapter(Adapter):
    """Reads a hint, and adds a feature to the last map of each level of the way down, at every step of its window.

    Slot `hint`: a plane with `channels` at picture resolution, values in [0, 1]; sides are multiples of `unshuffle`. It
    stays out of rows without a hint. Several add up. It knows neither time nor text, so the features are computed once
    a run. State-dict names: conv_in, stages.<i>.{in_conv,out_conv}, stages.<i>.blocks.<j>.{conv_1,conv_2}.
    """

    Config = T2IConfig
    config: T2IConfig
    examples = (
        Example(
            {"channels": 2, "unshuffle": 1, "widths": (8, 16, 16), "pools": (False, True, True), "blocks": 1,
             "ports": ("down.0", "down.1", "down.2"), "scale": 0.5},
            denoiser=HOST,
        ),
        Example(
            {"channels": 1, "unshuffle": 4, "widths": (8, 16, 16, 16), "pools": (False, False, True, False),
             "ports": ("down.0.resample", "down.1", "down.2", "mid")},
            denoiser=HOST,
            plane_factor=2,
        ),
        Example(
            {"channels": 3, "unshuffle": 2, "widths": (8, 16, 16), "pools": (False, True, True),
             "ports": ("down.0", "down.1", "down.2"), "light": True},
            denoiser=HOST,
            plane_factor=2,
        ),
    )  # fmt: skip

    def __init__(self, config: T2IConfig | None = None):
        super().__init__(config)
        c = self.config
        wide = c.channels * c.unshuffle**2
        self.conv_in = None if c.light else zeroed(nn.Conv2d(wide, c.widths[0], 3, padding=1))
        inputs = [wide if c.light else c.widths[0], *c.widths[:-1]]
        self.stages = nn.ModuleList(T2IStage(c, i, count) for i, count in enumerate(inputs))
        self.slots = {"hint": Slot("plane", c.channels, required=True)}
        self.steps = _steps(c)

    def tuned(self, **changes: Any) -> Self:
        """See `Adapter.tuned`: the options that may change are scale, start and end."""
        check_tunable(self.config, changes, ("scale", "start", "end"))
        return super().tuned(**changes)

    def taps(self, name: str) -> Mapping[str, Tap]:
        """At every port of the config."""
        return {port: _Adds(name, port) for port in self.config.ports}

    def adds(self, name: str) -> Mapping[str, int]:
        return dict(zip(self.config.ports, self.config.widths, strict=True))

    def prepare(self, context: Context, name: str) -> T2IState | None:
        """Compute the features, once per run; None without a hint.

        Raises:
            CompositionError: the hint is not a plane with the right channels.
            InputError: `hint-size`: its sides are no multiples of `unshuffle`.
        """
        hint = context.signals.get(f"{name}.hint")
        if hint is None:
            return None
        if not isinstance(hint, Plane) or hint.value.shape[1] != self.config.channels:
            raise CompositionError("wrong-signal", "the hint does not fit", fits=f"{self.slots['hint']}")
        present = context.present.get(f"{name}.hint")
        features = self(hint.value.to(self.dtype))
        if present is not None and not bool(present.all()):
            rows = present.to(self.dtype).view(-1, 1, 1, 1)
            features = {port: feature * rows for port, feature in features.items()}
        return T2IState(self, features, context.run)

    def acts(self, state: T2IState, sigma: float | None) -> bool:
        """Whether the step at `sigma` lies in [start, end]; always where run or sigma are unknown."""
        return state.run is None or sigma is None or self.config.holds(state.run, sigma)

    def idle(self, run: Run) -> str | None:
        """See `Adapter.idle`."""
        return "its scale is 0" if self.config.scale == 0 else self.config.outside(run)

    def forward(self, hint: Tensor) -> dict[str, Tensor]:
        """Scaled features (B, widths[i], h_i, w_i) by port, of a hint (B, channels, H, W) in [0, 1].

        Raises:
            InputError: `hint-size`: H or W is no multiple of `unshuffle`.
        """
        c = self.config
        height, width = hint.shape[2:]
        if height % c.unshuffle or width % c.unshuffle:
            what = f"the hint has {height} x {width} pixels"
            raise InputError("hint-size", what, where="hint", fits=f"sides that are multiples of {c.unshuffle}")
        x = F.pixel_unshuffle(hint, c.unshuffle)
        x = x if self.conv_in is None else self.conv_in(x)
        features: dict[str, Tensor] = {}
        for port, stage in zip(c.ports, self.stages, strict=True):
            x = stage(x)
            features[port] = x if c.scale == 1 else x * c.scale
        return features


def _steps(config: T2IConfig) -> dict[str, int]:
    """Port -> latent pixels between two of the map there."""
    steps: dict[str, Any] = {}
    for port in config.ports:
        _, _, rest = port.partition("down.")
        level, _, resample = rest.partition(".")
        steps[port] = 2 ** (int(level) + bool(resample)) if level.isdigit() else None
    deepest = max((step for step in steps.values() if step is not None), default=1)
    return {port: deepest if step is None else step for port, step in steps.items()}
