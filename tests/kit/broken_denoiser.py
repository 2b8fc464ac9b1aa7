"""Denoisers that break one promise each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from broken_gates import GATES
from broken_modules import module_faults
from broken_placed import ReadsABlocksWeight
from good_denoiser import Block, PatchContext, PatchNet
from torch import Tensor, nn

from ldmkit import Context, Frame, Port, Signal, Slot
from ldmkit.contracts.step import Network


class Declared(PatchNet):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.slots = {**self.slots, "plane": Slot("picture", 2)}  # type: ignore[arg-type]


class Shape(PatchNet):
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x, t, context, sigma)[:, :-1]


class Smallest(PatchNet):
    """Says nothing of the sizes it takes."""

    smallest = 1


class OddSizes(PatchNet):
    """Cuts off what does not fit."""

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2], t, context, sigma)


class KeepsPlaces(PatchNet):
    """Keeps the codes of places by the number of cells."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.places: dict[int, Tensor] = {}

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        h, w = x.shape[2:]
        if h * w not in self.places:
            self.places[h * w] = torch.linspace(-1, 1, h)[:, None] + torch.linspace(0, 2, w)
        return super().forward(x + self.places[h * w].view(h, w), t, context, sigma)


class BlindChannel(PatchNet):
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(torch.cat([x[:, :-1], 0 * x[:, -1:]], 1), t, context, sigma)


class Timeless(PatchNet):
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x, 0 * t, context, sigma)


class OneTime(PatchNet):
    """Takes the first row's time for all."""

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x, t[:1].expand(len(t)), context, sigma)


class WritesTime(PatchNet):
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x, t.div_(1000).mul(1000), context, sigma)


class IgnoresSlot(PatchNet):
    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        return super().prepare({name: signal for name, signal in signals.items() if name != "plane"})


class DemandsSlot(PatchNet):
    """`context` is declared optional."""

    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        assert signals["context"]
        return super().prepare(signals)


class SilentWithout(PatchNet):
    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        if "kind" in signals:
            return super().prepare(signals)
        return PatchContext(signals)


class KeyError_(PatchNet):
    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        signals["kind"]
        return super().prepare(signals)


class Maskless(PatchNet):
    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        changed = {k: s._replace(mask=None) if k == "context" else s for k, s in signals.items()}  # type: ignore[call-arg]
        return super().prepare(changed)


class EmptyBlock(Block):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        return (scores if mask is None else scores.masked_fill(~mask[:, None], -torch.inf)).softmax(-1) @ v


class NoTokenIsNaN(PatchNet):
    regions = (EmptyBlock,)

    def __init__(self, config: Any = None):
        super().__init__(config)
        ports = self.block.self_port, self.block.cross_port, self.block.out_port
        self.block = EmptyBlock(self.config.width)
        self.block.self_port, self.block.cross_port, self.block.out_port = ports


class OneContext(PatchNet):
    """Keeps one context for ever."""

    kept: PatchContext | None = None

    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        made = super().prepare(signals)
        if self.kept is None:
            self.kept = made
        self.kept.__dict__.update(row=made.row, kv=made.kv, plane=made.plane, signals=signals)
        return self.kept


class SharedAdapters(PatchNet):
    states: ClassVar[dict[str, Any]] = {}

    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        made = super().prepare(signals)
        made.adapters = self.states
        return made


class NoContext(PatchNet):
    def prepare(self, signals: Mapping[str, Signal]) -> Any:
        return SimpleNamespace(**super().prepare(signals).__dict__)


class ReadsSigma(PatchNet):
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x, t, context, sigma) * (1.0 if sigma is None else sigma)


class OwnPortName(PatchNet):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.ports = {**self.ports, "block.output": self.mid_port}


class OnePortTwice(PatchNet):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.ports = {**self.ports, "skip.0": self.mid_port}


class IdlePort(PatchNet):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.skip = Port()
        self.ports = {**self.ports, "skip.0": self.skip}


class DeafPort(PatchNet):
    """Calls a port and goes on with its own value."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.skip = Port()
        self.ports = {**self.ports, "skip.0": self.skip}

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        self.skip(x, Frame(x, t, context, sigma))
        return super().forward(x, t, context, sigma)


class Sticky(PatchNet):
    """Keeps the first thing that came out of a port."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        out = super().forward(x, t, context, sigma) + self.last
        if self.mid_port.taps:
            self.last = torch.ones(1)
        return out


class PortsOfTheClass(PatchNet):
    """Builds the mapping from ports that are no submodules, and does not copy them."""

    shared: ClassVar[Any] = Port()

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.ports = _Uncopied({**self.ports, "mid": self.shared})

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x, t, context, sigma) + self.shared(x, Frame(x, t, context, sigma)) * 0.1


class _Uncopied(dict[str, Port]):
    def __deepcopy__(self, memo: Any) -> _Uncopied:
        return self


class NoSigma(PatchNet):
    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        return super().forward(x, t, context, None)


class EmptyFrame(PatchNet):
    """Gives taps a frame without the context."""

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        assert isinstance(context, PatchContext)
        bare = PatchContext(context.signals, row=context.row, kv=context.kv, plane=context.plane)
        return super().forward(x, t, bare, sigma)


class FlatSkip(PatchNet):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.skip = Port()
        self.ports = {**self.ports, "skip.0": self.skip}

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        flat = self.skip(x.flatten(2), Frame(x, t, context, sigma))
        return super().forward(flat.view(x.shape), t, context, sigma)


class BlockOfMaps(PatchNet):
    """Calls a block port with a map."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.ports = {**self.ports, "block.block": self.mid_port}
        del self.ports["mid"]


class StaleProjection(PatchNet):
    """Calls a port in `prepare` alone."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.tokens_port = Port()
        self.ports = {**self.ports, "linear.tokens": self.tokens_port}

    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        context = super().prepare(signals)
        if context.kv is not None:
            value: Any = signals["context"]
            frame = Frame(value.value, value.value, context, scratch={"input": value.value})
            context.kv = self.tokens_port(context.kv, frame)
        return context


class OtherLayer(PatchNet):
    """Publishes the port of one layer under the path of another."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.ports = {**self.ports, "linear.block.query": self.block.out_port}
        del self.ports["linear.block.out"]


class NoLayer(PatchNet):
    def __init__(self, config: Any = None):
        super().__init__(config)
        self.ports = {**self.ports, "linear.block.exit": self.block.out_port}
        del self.ports["linear.block.out"]


class SilentLinear(PatchNet):
    """Does not say what went into the linear layer."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.ports = {**self.ports, "linear.x": self.input_port, "input": self.mid_port}


class OnTheModule(PatchNet):
    """Keeps what `prepare` computed on the module."""

    def prepare(self, signals: Mapping[str, Signal]) -> PatchContext:
        self.row = super().prepare(signals).row
        return super().prepare(signals)

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        assert isinstance(context, PatchContext)
        return super().forward(x, t, PatchContext(**{**context.__dict__, "row": self.row}), sigma)


class OneCallAtATime(PatchNet):
    """Keeps x on the module while it computes."""

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        self.x = x
        time.sleep(0.002)
        return super().forward(self.x, t, context, sigma)


class AsksTheNumbers(Block):
    def forward(self, x: Tensor, kv: Tensor | None, mask: Tensor | None, frame: Frame) -> Tensor:
        return super().forward(x / max(1.0, x.abs().max().item()), kv, mask, frame)


class Branches(Block):
    def forward(self, x: Tensor, kv: Tensor | None, mask: Tensor | None, frame: Frame) -> Tensor:
        return super().forward(x if x.abs().max() < 1e6 else x / 2, kv, mask, frame)


class WithItem(PatchNet):
    regions = (AsksTheNumbers,)

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.block.__class__ = AsksTheNumbers


class WithBranch(PatchNet):
    regions = (Branches,)

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.block.__class__ = Branches


class NoRegion(PatchNet):
    regions = (nn.Bilinear,)


class OtherPlan(PatchNet):
    """Its automatic plan computes something else."""

    def plan(self, name: str) -> Network:
        if name != "auto":
            return super().plan(name)
        return lambda x, t, context, sigma: self(x, t, context, sigma) * 1.01


class AnyPlan(PatchNet):
    def plan(self, name: str) -> Network:
        return self


BROKEN: dict[str, list[type[Any]]] = {
    "declared": [Declared],
    "shape": [Shape],
    "smallest": [Smallest, OddSizes],
    "sizes-in-turn": [KeepsPlaces],
    "x-matters": [BlindChannel],
    "time-matters": [Timeless, OneTime, WritesTime],
    "slots-matter": [IgnoresSlot],
    "optional-slots": [DemandsSlot],
    "required-slots": [SilentWithout, KeyError_],
    "masks": [Maskless, NoTokenIsNaN],
    "context": [OneContext, SharedAdapters, NoContext],
    "sigma": [ReadsSigma],
    "port-names": [OwnPortName, OnePortTwice],
    "ports-called": [IdlePort],
    "ports-matter": [DeafPort],
    "detach": [Sticky],
    "port-copies": [PortsOfTheClass],
    "frames": [NoSigma, EmptyFrame],
    "gates": [*GATES],
    "port-states": [StaleProjection],
    "linear-layers": [OtherLayer, NoLayer],
    "port-values": [FlatSkip, SilentLinear, BlockOfMaps],
    "interleaved": [OnTheModule],
    "threads": [OneCallAtATime],
    "no-waiting": [WithItem, WithBranch],
    "compiles": [WithBranch, NoRegion],
    "plans": [OtherPlan, AnyPlan],
    "placed": [ReadsABlocksWeight],
    **{name: [cls] for name, cls in module_faults(PatchNet, "forward").items()},
}
"""Check -> parts that it must catch."""
