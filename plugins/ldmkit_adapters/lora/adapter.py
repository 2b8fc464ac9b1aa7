"""LoRA and its relatives: changes of weights, attached to the layers' ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from ldmkit_denoisers.config import SMALL
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import Adapter, CompositionError, Context, Example, Frame, Fusable, Run, SpecError, Tap
from ldmkit.bounds import SignedScale
from ldmkit_adapters.lora.forms import is_form
from ldmkit_adapters.lora.update import LayerUpdate, Update, applied
from ldmkit_adapters.scales import check_scales, scale_of
from ldmkit_adapters.windows import Window

PREFIX = "conditioners."
_HOST = {**SMALL, "attention": ("none", "cross"), "context_dim": 6, "vector": "mlp", "vector_dim": 4}
_ATTN, _CONV = "linear.mid.attn.blocks.0", "conv.mid.res.0.conv_1"


def _example(*layers: dict[str, Any], **options: Any) -> Example:
    return Example({"layers": layers, **options}, denoiser={"type": "unet", "config": _HOST})


class LoRAConfig(Window):
    """Changes of weights.

    Args:
        layers: what is changed.
        scale: of all changes; 0 is the network without them.
        scales: further factors for layers whose path begins so: `down.1`, `mid`, `conditioners.text`; the longest that
            fits counts.
        start, end: the part of the run, in fractions of its steps, in which the denoiser is changed; texts are encoded
            before it begins, with the changes of their encoders in full.
    """

    layers: tuple[LayerUpdate, ...] = Field(min_length=1)
    scale: SignedScale = 1.0
    scales: Mapping[str, SignedScale] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for i, layer in enumerate(self.layers):
            if not is_form(layer.tensors):
                what = f"tensors named {', '.join(layer.tensors) or 'nothing'} are no form of a change"
                raise SpecError("invalid", what, where=f"layers.{i}.tensors", fits="down and up, for example")
        check_scales(self.scales, [path_of(layer.port) for layer in self.layers], "changed layers")
        return self

    @property
    def strengths(self) -> dict[str, float]:
        """Port -> the factor of the changes there."""
        return {layer.port: scale_of(path_of(layer.port), self.scale, self.scales) for layer in self.layers}


def path_of(port: str) -> str:
    """The layer's path: without the port's family, `conditioners.text.tower.blocks.0.qkv` in a conditioner."""
    if port.startswith(PREFIX):
        name, _, rest = port.removeprefix(PREFIX).partition(".")
        return f"{PREFIX}{name}.{rest.partition('.')[2]}"
    return port.partition(".")[2]


@dataclass
class LoRAState:
    """What a run keeps: the adapter, the run, and changes that are as large as their weights, made once."""

    adapter: LoRA
    run: Run | None = None
    changes: dict[int, Tensor] = field(default_factory=dict)

    def added(self, port: str, value: Tensor, frame: Frame) -> Tensor:
        """The layer's output with the changes at its port."""
        config = self.adapter.config
        if self.run is not None and frame.sigma is not None and not config.holds(self.run, frame.sigma):
            return value
        strength = self.adapter.strengths.get(port, 0.0)
        x, layer = frame.scratch["input"], frame.scratch["layer"]
        for index in self.adapter.at.get(port, ()) if strength else ():
            update = self.adapter.updates[index]
            assert isinstance(update, Update)
            if update.of_weight:
                value = value + self._one(index, update, x, layer, strength).to(value.dtype)
            bias = update.added_bias(layer.weight.shape[0], strength)
            if bias is not None:
                value = value + (bias if isinstance(layer, nn.Linear) else bias[:, None, None]).to(value.dtype)
        return value

    def _one(self, index: int, update: Update, x: Tensor, layer: Any, strength: float) -> Tensor:
        x = update.seen(x)
        if update.factored:
            return update.through(x, layer, strength)
        change = self.changes.get(index)
        if change is None:
            change = update.change(layer.weight, strength).to(x.dtype)
            if not torch.is_grad_enabled():
                self.changes[index] = change
        return applied(x, layer, change)


@dataclass(frozen=True)
class _Changed:
    """Tap at a layer's port: what the layer would yield with its weight changed."""

    name: str
    port: str

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        state = frame.context.adapters.get(self.name)
        if isinstance(state, LoRA):  # conditions are encoded before there is a run
            state = LoRAState(state)
        return value if state is None else state.added(self.port, value, frame)


class LoRA(Fusable, Adapter):
    """Changes of weights, of the denoiser and of conditioners; a new one changes nothing.

    State-dict names: updates.<i>.<tensor>, in the order of `layers`.
    """

    Config = LoRAConfig
    config: LoRAConfig
    examples = (
        _example(
            {"port": f"{_ATTN}.cross_attn.to_k", "tensors": {"down": (2, 6), "up": (16, 2)}, "factor": 0.5},
            {"port": _CONV, "tensors": {"down": (2, 16, 3, 3), "up": (16, 2, 1, 1)}},
            {"port": "conv.down.0.resample.conv", "tensors": {"down": (2, 8), "mid": (2, 2, 3, 3), "up": (8, 2)}},
        ),
        _example(
            {
                "port": f"{_ATTN}.self_attn.to_q",
                "tensors": {"a1": (16, 2), "b1": (2, 16), "a2": (16, 2), "b2": (2, 16)},
            },
            {"port": f"{_ATTN}.ff.proj", "tensors": {"down": (2, 16), "up": (64, 2)}, "rows": (32, 64)},
            {"port": _CONV, "tensors": {"w1": (4, 2), "w2_a": (4, 2), "w2_b": (2, 72)}},
            {"port": "linear.vector_embed.inner", "tensors": {"diff": (32, 4), "bias": (32,)}},
            scale=0.5,
            scales={"mid": 0.8, "mid.attn": 1.5},
        ),
    )

    def __init__(self, config: LoRAConfig | None = None):
        super().__init__(config)
        self.slots = {}
        self.updates = nn.ModuleList(Update(layer) for layer in self.config.layers)
        self.at: dict[str, list[int]] = {}
        for index, layer in enumerate(self.config.layers):
            self.at.setdefault(layer.port, []).append(index)
        self.strengths = self.config.strengths

    def tuned(self, **changes: Any) -> Self:
        """See `Adapter.tuned`: the options that may change are scale, scales, start and end."""
        other = super().tuned(**changes)
        other.strengths = other.config.strengths
        return other

    def taps(self, name: str) -> Mapping[str, Tap]:
        """At every layer of the denoiser that is changed."""
        return {port: _Changed(name, port) for port in self.at if not port.startswith(PREFIX)}

    def conditioner_taps(self, name: str) -> Mapping[str, Mapping[str, Tap]]:
        """At every layer of a conditioner that is changed."""
        taps: dict[str, dict[str, Tap]] = {}
        for port in self.at:
            if port.startswith(PREFIX):
                conditioner, _, own = port.removeprefix(PREFIX).partition(".")
                taps.setdefault(conditioner, {})[own] = _Changed(name, port)
        return taps

    def prepare(self, context: Context, name: str) -> LoRAState:
        """Begin a run."""
        return LoRAState(self, context.run)

    def idle(self, run: Run) -> str | None:
        """See `Adapter.idle`."""
        if not any(self.strengths.values()):
            return "its scale is 0"
        inside = any(port.startswith(PREFIX) for port in self.at)
        return None if inside else self.config.outside(run)

    def delta(self, port: str, weight: Tensor) -> Tensor:
        """See `Fusable.delta`.

        Raises:
            CompositionError: `not-fusable`: it acts in a part of the run only.
        """
        if not self.config.whole and not port.startswith(PREFIX):
            what = f"it acts from {self.config.start:g} to {self.config.end:g} of the run only"
            raise CompositionError("not-fusable", what, fits="start 0 and end 1")
        return self._summed(port, weight)

    def _summed(self, port: str, weight: Tensor) -> Tensor:
        total = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for index in self.at[port]:
            update = self.updates[index]
            assert isinstance(update, Update)
            total += update.change(weight, self.strengths[port])
        return total

    def bias_delta(self, port: str, bias: Tensor) -> Tensor | None:
        """See `Fusable.bias_delta`."""
        found = [self.updates[index].added_bias(len(bias), self.strengths[port]) for index in self.at[port]]
        changes = [delta for delta in found if delta is not None]
        return sum(changes[1:], changes[0]) if changes else None
