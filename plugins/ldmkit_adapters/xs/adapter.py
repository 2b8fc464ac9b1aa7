"""ControlNet-XS (Zavadski et al. 2023, type B): a thin encoder that exchanges maps with the U-Net's at every block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch.nn.functional as F
from ldmkit_denoisers.attention import TransformerBlock
from ldmkit_denoisers.config import SMALL, at
from ldmkit_denoisers.embeddings import EmbeddingMLP, frequencies, sinusoidal
from torch import Tensor, nn

from ldmkit import Adapter, CompositionError, Context, Example, Frame, InputError, Plane, Run, Slot, Tap, Tokens
from ldmkit_adapters.controlnet import HintEncoder
from ldmkit_adapters.windows import check_tunable
from ldmkit_adapters.xs.network import Crossed, XSConfig, XSLevel, XSMiddle, zero_conv

_HOST = {
    "type": "unet",
    "config": {
        **SMALL,
        "blocks": 2,
        "attention": ("none", "cross"),
        "context_dim": 6,
        "vector": "mlp",
        "vector_dim": 4,
    },
}
_OWN = {
    "channels": 3, "base_widths": (8, 16), "widths": (4, 6), "attention": ("none", "cross"), "heads": 2,
    "context_dim": 6, "hint_channels": 2, "hint_widths": (4, 4),
}  # fmt: skip


@dataclass
class Pass:
    """One call of the network: the control's map as it is, those left for the way up, and SiLU of the embedding."""

    state: XSState
    h: Tensor | None = None
    skips: list[Tensor] = field(default_factory=list)
    emb: Tensor | None = None


@dataclass
class XSState:
    """What a run keeps: the adapter, keys and values, the encoded hint (B, C, h, w), rows (B,1,1,1) or None, run."""

    control: ControlNetXS
    crossed: Crossed
    hint: Tensor
    rows: Tensor | None = None
    run: Run | None = None

    def crop(self, top: int, left: int, height: int, width: int) -> XSState:
        """The state for a window of the latents, in latent pixels."""
        return replace(self, hint=self.hint[..., top : top + height, left : left + width])

    def added(self, value: Tensor, change: Tensor) -> Tensor:
        """The U-Net's map with what is added to it."""
        change = change if self.control.config.scale == 1 else change * self.control.config.scale
        change = change if self.rows is None else change * self.rows
        return value + change.to(value.dtype)


@dataclass(frozen=True)
class _Tap:
    """A tap that does something in calls in which the adapter acts."""

    name: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        now = frame.scratch.get(self.name)
        if now is None:
            state = frame.context.adapters.get(self.name)
            if not isinstance(state, XSState) or not state.control.acts(state, frame.sigma):
                return value
            now = frame.scratch[self.name] = Pass(state)
        return self.act(now, value, frame)

    def act(self, now: Pass, value: Tensor, frame: Frame) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class _Time(_Tap):
    """At the end of the U-Net's time embedding, which the control's blocks read too."""

    def act(self, now: Pass, value: Tensor, frame: Frame) -> Tensor:
        value = now.state.control.timed(value, now.state, frame)
        vector = getattr(getattr(frame.context, "projected", None), "vector", None)
        now.emb = F.silu(value if vector is None else value + vector).to(now.state.hint.dtype)
        return value


@dataclass(frozen=True)
class _Entry(_Tap):
    """At the U-Net's first convolution."""

    def act(self, now: Pass, value: Tensor, frame: Frame) -> Tensor:
        control = now.state.control
        h = control.conv_in(frame.x.to(now.state.hint.dtype))
        if h.shape[2:] != now.state.hint.shape[2:]:
            got, want = tuple(now.state.hint.shape[2:]), tuple(h.shape[2:])
            raise InputError("hint-size", f"the hint is for latents {got}, these are {want}", where="hint")
        now.h = h + now.state.hint
        now.skips.append(now.h)
        return now.state.added(value, control.to_base_in(now.h))


@dataclass(frozen=True)
class _Block(_Tap):
    """At a block of the way down; None: the resampling of the level."""

    level: int
    index: int | None

    def act(self, now: Pass, value: Tensor, frame: Frame) -> Tensor:
        level = now.state.control.down[self.level]
        theirs = frame.scratch["input"].to(now.state.hint.dtype)
        assert isinstance(level, XSLevel) and now.h is not None and now.emb is not None
        if self.index is None:
            now.h, change = level.resampled(now.h, theirs)
        else:
            now.h, change = level.block(self.index, now.h, theirs, now.emb, frame, now.state.crossed)
        now.skips.append(now.h)
        return now.state.added(value, change)


@dataclass(frozen=True)
class _Middle(_Tap):
    """At the middle."""

    def act(self, now: Pass, value: Tensor, frame: Frame) -> Tensor:
        theirs = frame.scratch["input"].to(now.state.hint.dtype)
        return now.state.added(value, now.state.control.mid(now.h, theirs, now.emb, frame, now.state.crossed))


@dataclass(frozen=True)
class _Join(_Tap):
    """At the map that is joined with a skip on the way up."""

    place: int

    def act(self, now: Pass, value: Tensor, frame: Frame) -> Tensor:
        return now.state.added(value, now.state.control.joins[self.place](now.skips[self.place]))


class ControlNetXS(Adapter):
    """A thin encoder that reads the U-Net's map before each of its blocks and adds to the map after it, also on the
    way up.

    Slot `hint`: a plane with `hint_channels` at picture resolution, values in [0, 1]. It stays out of rows without a
    hint. State-dict names: hint.convs.<i>, conv_in, to_base_in, time_embed, down.<level>.{res,attn,to_control,to_base,
    resample}, mid.{res,attn,to_control,to_base}, joins.<skip>.
    """

    Config = XSConfig
    config: XSConfig
    examples = (
        Example(_OWN, denoiser=_HOST, plane_factor=2),
        Example(
            {**_OWN, "blocks": 1, "widths": (4, 4), "depth": (1, 2), "groups": 3, "scale": 0.5, "hint_widths": (4,)},
            denoiser={**_HOST, "config": {**_HOST["config"], "blocks": 1}},  # type: ignore[dict-item]
        ),
        Example(  # a new one is the identity only where nothing of the U-Net's time embedding is replaced
            {**_OWN, "learn_time": True, "time_mix": 0.0, "linear_projections": False, "upcast_attention": False},
            trained=False,
            denoiser=_HOST,
            plane_factor=2,
        ),
    )
    options: ClassVar[tuple[str, ...]] = ("scale", "start", "end")

    def __init__(self, config: XSConfig | None = None):
        super().__init__(config)
        c = self.config
        self.hint = HintEncoder(c.hint_channels, c.hint_widths, c.widths[0])
        self.conv_in = nn.Conv2d(c.channels, c.widths[0], 3, padding=1)
        self.to_base_in = zero_conv(c.widths[0], c.base_widths[0])
        self.time_embed = EmbeddingMLP(c.base_widths[0], c.embedding) if c.learn_time else None
        count, levels = 0, []
        for level in range(c.levels):
            levels.append(XSLevel(c, level, count))
            count += len(levels[-1].attn) * at(c.depth, level)
        self.down = nn.ModuleList(levels)
        self.mid = XSMiddle(c, count)
        self.joins = nn.ModuleList(zero_conv(own, theirs) for own, theirs in c.joins())
        self.channels = c.channels
        self.slots = {"hint": Slot("plane", c.hint_channels, required=True)}
        self.reads = {"context": Slot("tokens", c.context_dim)}

    def taps(self, name: str) -> Mapping[str, Tap]:
        """At the time embedding, the first convolution, every block and resampling of the way down, the middle, and
        every map that is joined with a skip."""
        taps: dict[str, Tap] = {"linear.time_embed.outer": _Time(name), "conv.conv_in": _Entry(name)}
        for level in range(self.config.levels):
            taps |= {f"down.{level}.{i}": _Block(name, level, i) for i in range(self.config.blocks)}
            if level < self.config.levels - 1:
                taps[f"down.{level}.resample"] = _Block(name, level, None)
        return {**taps, "mid": _Middle(name), **{f"deep.{i}": _Join(name, i) for i in range(len(self.joins))}}

    def adds(self, name: str) -> Mapping[str, int]:
        c = self.config
        found = {"linear.time_embed.outer": c.embedding, "conv.conv_in": c.base_widths[0], "mid": c.base_widths[-1]}
        for level, width in enumerate(c.base_widths):
            found |= {f"down.{level}.{i}": width for i in range(c.blocks)}
        return found

    def tuned(self, **changes: Any) -> Self:
        """See `Adapter.tuned`: the options that may change are scale, start and end."""
        check_tunable(self.config, changes, self.options)
        return super().tuned(**changes)

    def prepare(self, context: Context, name: str) -> XSState | None:
        """Encode the hint and project the tokens, once per run; None without a hint, and with a scale of 0.

        Raises:
            CompositionError: the hint is not a plane with the right channels, or there are no tokens.
        """
        hint, tokens = context.signals.get(f"{name}.hint"), context.signals.get("context")
        if hint is None or self.config.scale == 0:
            return None
        if not isinstance(hint, Plane) or hint.value.shape[1] != self.config.hint_channels:
            raise CompositionError("wrong-signal", "the hint does not fit", fits=f"{self.slots['hint']}")
        if not isinstance(tokens, Tokens):
            raise CompositionError("missing-signal", "no 'context' condition", fits=f"{self.reads['context']}")
        present = context.present.get(f"{name}.hint")
        rows = None
        if present is not None and not bool(present.all()):
            rows = present.to(self.dtype).view(-1, 1, 1, 1)
        picture = hint.value.flip(1) if self.config.order == "bgr" else hint.value
        mask = None if tokens.mask is None else tokens.mask[:, None, None, :]
        crossed = self._crossed(tokens.value.to(self.dtype), context), mask
        return XSState(self, crossed, self.hint(picture.to(self.dtype)), rows, context.run)

    def acts(self, state: XSState, sigma: float | None) -> bool:
        """Whether the step at `sigma` lies in [start, end]; always where run or sigma are unknown."""
        return state.run is None or sigma is None or self.config.holds(state.run, sigma)

    def idle(self, run: Run) -> str | None:
        """See `Adapter.idle`."""
        return "its scale is 0" if self.config.scale == 0 else self.config.outside(run)

    def timed(self, value: Tensor, state: XSState, frame: Frame) -> Tensor:
        """The U-Net's time embedding (B or 1, embedding) with a part of it replaced by the control's."""
        if self.time_embed is None:
            return value
        width = self.config.base_widths[0]
        freqs = frequencies(width, device=frame.t.device)
        own = self.time_embed(sinusoidal(frame.t, freqs, width).to(state.hint.dtype)).to(value.dtype)
        part = self.config.time_mix**0.3
        mixed = own * part + value * (1 - part)
        return mixed if state.rows is None else mixed.where(state.rows.view(-1, 1) > 0, value)

    def _crossed(self, tokens: Tensor, context: Context) -> tuple[Any, ...]:
        frame = Frame(tokens, tokens.new_zeros(tokens.shape[0]), context)
        blocks = sorted((m for m in self.modules() if isinstance(m, TransformerBlock)), key=lambda m: m.index)
        return tuple(block.cross_attn.keys_values(tokens, frame) for block in blocks)
