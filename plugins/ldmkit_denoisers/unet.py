"""The U-Net of latent diffusion, Stable Diffusion 1, 2 and XL, and of the pixel models they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ldmkit import (
    CompositionError,
    Context,
    Denoiser,
    Example,
    Frame,
    Gate,
    InputError,
    Port,
    PortedConv2d,
    Signal,
    Work,
)
from ldmkit_denoisers.attention import SelfAttention2d, TransformerBlock
from ldmkit_denoisers.conditions import Projected, UNetContext, checked_plane, unet_slots
from ldmkit_denoisers.config import SMALL, UNetConfig, mid_level, skip_widths, smallest_map, up_levels
from ldmkit_denoisers.encoder import Encoder, UNetLevel, WayDown, crossings, inner_ports, level_ports
from ldmkit_denoisers.footprint import footprint
from ldmkit_denoisers.joint import JointAttention2d
from ldmkit_denoisers.packing import packable
from ldmkit_denoisers.ported import activate, apply_layer, passed, zeroed
from ldmkit_denoisers.resnet import ResBlock

UNCLIP = {"image_dim": 5, "image_tokens": 2, "image_time": True, "image_norm": False}
UNCLIP |= {"context_source": 8, "context_norm": True}
JOINT = {"attention": ("none", "joint"), "context_dim": 6, "residual_resample": True, "output_scale": 1.5}
VECTOR = {"vector": "mlp", "vector_dim": 4}

__all__ = ["UNet", "UNetConfig", "UNetContext"]


class UNet(Encoder, Denoiser):
    """F(x, t, context): x (B, channels, h, w), t (B,) in training steps -> (B, out_channels, h, w), any h and w.

    Slots (if configured): `context` tokens for attention and for the pool that is added to the time embedding, `vector`
    added to the time embedding, `image` a picture's embedding that the context is made of or that is added to the time
    embedding, `plane` concatenated to x.

    Ports: `input` (x with the plane, before `conv_in`); `down.<level>`, a level's last map before it becomes a skip and
    is resampled; `down.<level>.resample`, the resampled map, which is a skip and the next level's input; `skip.<i>`,
    map i of the way down in the order they are made, at the moment the way up reads it; `deep.<i>`, a gate: the map
    that the way up joins with it, which guards all between making and reading that skip; `mid`, the middle's output;
    `attn.<path>`, `self.<path>`, `block.<path>`, `cross.<path>` and `joint.<path>` of every attention and of the
    residual stream between the attentions of a transformer block, `linear.<path>` and `conv.<path>` of every layer, by
    module path.

    State-dict names: conv_in, time_table, time_embed, vector_embed, context_proj, context_pool, image_tokens,
    image_time, down.<level>.{res,attn,resample}, mid.{res,attn}, up.<level>.{res,attn,resample}, norm_out, conv_out;
    levels count from the full resolution on both sides.
    """

    Config = UNetConfig
    examples = (
        Example({**SMALL, "in_channels": 5, "attention": ("self", "cross"), "context_dim": 6, **VECTOR}),
        Example({**SMALL, "scale_shift": True, "residual_resample": True, "vector": "table", "vector_dim": 3}),
        Example({**SMALL, "attention": ("none", "self"), "time_code": 12, "time_dim": 20}),
        Example({**SMALL, "attention": ("none", "cross"), "down_padding": 0, "vector": "timestep"}),
        Example({**SMALL, **JOINT, "context_groups": 3, "context_source": 8, "pool_heads": 2, "activation": "gelu"}),
        Example({**SMALL, **JOINT, **UNCLIP, "vector": "linear", "vector_dim": 4}),
        Example({**SMALL, **JOINT, "image_dim": 5, "image_tokens": 2, "image_time": True, "only_cross": (True, False)}),
        Example({**SMALL, "resample_conv": False, "mid": "absent", "blocks": (2, 1), "out_channels": 6}),
    )
    plans = (*Denoiser.plans, "prepacked", "exported")
    plan_makers: ClassVar[Mapping[str, str]] = {
        **Denoiser.plan_makers,
        "prepacked": "ldmkit_denoisers.prepacked:PrepackedUNet",
        "exported": "ldmkit_denoisers.exported:ExportedUNet",
    }
    regions = (ResBlock, TransformerBlock, SelfAttention2d, JointAttention2d)

    def __init__(self, config: UNetConfig | None = None):
        Denoiser.__init__(self, config)
        config = self.config
        self.channels = config.channels
        self.smallest = smallest_map(config)
        self.build_encoder(config)
        stages: list[UNetLevel] = []
        for plan in up_levels(config):
            stages.append(UNetLevel(config, plan, "up", self.cross_count))
            self.cross_count += crossings(plan)
        self.up = nn.ModuleList(reversed(stages))
        self.norm_out = nn.GroupNorm(config.norm_groups, config.widths[0], config.norm_eps)
        self.conv_out = zeroed(PortedConv2d(config.widths[0], config.out_channels or config.channels, 3, padding=1))
        self.input_port, self.mid_port = Port(config.widths[0]), Port(mid_level(config).width)
        self.skip_ports = nn.ModuleList(Port(width) for width in skip_widths(config))
        self.gates = nn.ModuleList(Gate() for _ in skip_widths(config))
        self.slots = unet_slots(config)
        skips = {f"skip.{i}": port for i, port in enumerate(self.skip_ports)}
        skips |= {f"deep.{i}": gate for i, gate in enumerate(self.gates)}
        levels = level_ports(self.down)
        self.ports = {"input": self.input_port, **levels, **skips, "mid": self.mid_port, **inner_ports(self)}

    def prepare(self, signals: Mapping[str, Signal]) -> UNetContext:
        """Project keys, values and the vector, once per run.

        Raises:
            CompositionError: a slot of the network is not filled.
        """
        context = UNetContext(signals)
        context.plane = checked_plane(self.config, signals)
        context.projected = self.project(signals, context)
        return context

    def adapted(self, context: Context) -> Context:
        """See `Denoiser.adapted`: recomputes keys and values if their projections are tapped."""
        if isinstance(context, UNetContext) and self.projects_through_taps():
            context.projected = self.project(context.signals, context)
        return context

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F, in the network's dtype.

        Raises:
            CompositionError: the context is another network's.
            InputError: the plane has another size than x.
        """
        if not isinstance(context, UNetContext) or context.projected is None:
            raise CompositionError("foreign-context", "the context was not prepared by a U-Net")
        projected = context.projected
        frame = Frame(x, t, context, sigma)
        h = x.to(self.conv_in.weight.dtype)
        if context.plane is not None:
            h = with_plane(h, context.plane)
        if self.input_port.taps:
            h = self.input_port(h, frame)
        emb = self.embed(t, projected, frame)
        way = self.encode(apply_layer(self.conv_in, h, frame), emb, frame, projected, self.gates)
        if self.mid_port.taps and way.cut is None:
            way.h = passed(self.mid_port, way.h, way.skips[-1], frame)
        h = self._decode(way, emb, frame, projected)
        return apply_layer(self.conv_out, activate(self.norm_out(h), self.config.activation), frame)  # type: ignore[no-any-return]

    def footprint(self, rows: int, size: tuple[int, ...]) -> Work:
        """See `Denoiser.footprint`."""
        return footprint(self.config, rows, size, self.dtype.itemsize)

    @property
    def automatic_plan(self) -> str:
        """ "prepacked" where it is available: on the CPU, in float32 or bfloat16."""
        return "prepacked" if packable(self.device, self.dtype) else "eager"

    def _decode(self, way: WayDown, emb: Tensor, frame: Frame, projected: Projected) -> Tensor:
        h, skips, depth, place = way.h, way.skips, len(way.skips), len(self.skip_ports)
        for stage in reversed(self.up):
            for i, res in enumerate(stage.res):
                place -= 1
                if place >= depth:  # the way down ended earlier
                    continue
                h, skip, port = way.joined(place, h), skips.pop(), self.skip_ports[place]
                if port.taps:
                    skip = port(skip, frame)
                joined = torch.cat([h, skip], dim=1)
                h = self.block(res, stage.attn[i] if stage.attn else None, joined, emb, frame, projected)
            if stage.resample is not None and place < depth:
                h = stage.resample(h, emb, (skips[-1].shape[2], skips[-1].shape[3]), frame)
        return h


def with_plane(h: Tensor, plane: Tensor) -> Tensor:
    """Concatenate a plane of the same size to a map."""
    check_plane_size(plane, tuple(h.shape[2:]))
    return torch.cat([h, plane.to(h.dtype)], dim=1)


def check_plane_size(plane: Tensor, size: tuple[int, ...]) -> None:
    """Refuse a plane (B, C, h, w) of another (h, w) than the latents'.

    Raises:
        InputError: `plane-size`.
    """
    if plane.shape[2:] != size:
        fits = "conditioners of this slot that make planes of the latents' size: the picture's over the codec's factor"
        what = f"the plane is {tuple(plane.shape[2:])}, the latents are {size}"
        raise InputError("plane-size", what, where="plane", fits=fits)
