"""Fusing of adapters into copies of the weights that they act on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ldmkit.contracts.adapter import Adapter, Fusable
from ldmkit.contracts.nn import layer_of, ports_in
from ldmkit.contracts.part import Part
from ldmkit.errors import CompositionError, shown, suggest
from ldmkit.models.compose import Parts
from ldmkit.models.mapped import share_files
from ldmkit.models.residence import home_of
from ldmkit.models.spec import ConditionerSpec

DENOISER = "denoiser"

Fused: TypeAlias = tuple[Parts, tuple[str, ...]]


def fused_parts(parts: Parts, wiring: Mapping[str, ConditionerSpec], names: Sequence[object] = ()) -> Fused:
    """The parts with adapters merged into the weights, and the names of these adapters; the arguments are unchanged.

    Tensors that no adapter acts on are shared. Sums are computed in float32 or wider, from the original weights.

    Args:
        names: adapters to fuse; () fuses all that can be.

    Raises:
        CompositionError: `unknown-adapter`, `not-fusable`.
    """
    chosen = _chosen(parts.adapters, names)
    acts: dict[str, dict[str, list[tuple[str, Fusable]]]] = {}
    for name, adapter in chosen.items():
        for where, tapped in _tapped(name, parts.adapters[name]).items():
            for port in tapped:
                acts.setdefault(where, {}).setdefault(port, []).append((name, adapter))
    named: dict[str, Any] = {DENOISER: parts.denoiser, **parts.conditioners}
    readers = {name for name, spec in wiring.items() if spec.shares in acts}
    copies = twins(parts, {where: named[where] for where in {*acts, *readers}})
    for where, ports in acts.items():
        for port, adapters in ports.items():
            _fuse(where, copies[where], port, adapters)
    left = {name: adapter for name, adapter in parts.adapters.items() if name not in chosen}
    conditioners = {name: copies.get(name, part) for name, part in parts.conditioners.items()}
    denoiser = copies.get(DENOISER, parts.denoiser)
    return replace(parts, denoiser=denoiser, conditioners=conditioners, adapters=left), tuple(chosen)


def twins(parts: Parts, which: Mapping[str, Part]) -> dict[str, Any]:
    """Copies of some parts that share their tensors but have their own modules, parameters and ports, without taps or
    placement.

    References between the copied parts point to the copies; references to other parts stay.

    Raises:
        RunError: `busy`: a run has fetched the weights of a placed part.
    """
    for part in which.values():
        if (home := home_of(part)) is not None:
            home.check_idle()
    memo: dict[int, Any] = {id(part): part for part in parts.items().values() if part not in which.values()}
    memo |= {id(home): home for part in which.values() if (home := home_of(part)) is not None}
    for part in which.values():
        for own in part.parameters():
            memo.setdefault(id(own), nn.Parameter(own.detach(), requires_grad=own.requires_grad))
        memo |= {id(buffer): buffer for buffer in part.buffers()}
    made: dict[str, Any] = copy.deepcopy(dict(which), memo)
    for path, part in which.items():
        share_files(part, made[path])
        if (home := home_of(part)) is not None:
            home.bare(made[path])
        for port in ports_in(made[path]):
            port.clear()
    return made


def _chosen(adapters: Mapping[str, Adapter], names: Sequence[object]) -> dict[str, Fusable]:
    for name in names:
        if not isinstance(name, str) or name not in adapters:
            raise CompositionError("unknown-adapter", f"no adapter {shown(name)}", fits=suggest(name, adapters))
    able = {name: adapter for name, adapter in adapters.items() if isinstance(adapter, Fusable)}
    for name in names:
        if name not in able:
            what = f"adapter {name!r} ({type(adapters[str(name)]).__name__}) does not only add to linear layers"
            raise CompositionError("not-fusable", what, fits=f"adapters that can be fused: {', '.join(able) or 'none'}")
    if not able:
        what = f"none of the {len(adapters)} adapters can be fused" if adapters else "the pipeline has no adapters"
        raise CompositionError("not-fusable", what, fits="an adapter that is an ldmkit.Fusable")
    return {name: adapter for name, adapter in able.items() if not names or name in names}


def _tapped(name: str, adapter: Adapter) -> dict[str, list[str]]:
    """Part -> the ports of its layers that an adapter taps.

    Raises:
        CompositionError: `not-fusable`: it taps other ports, or takes conditions.
    """
    found = {DENOISER: list(adapter.taps(name))}
    found |= {where: list(taps) for where, taps in adapter.conditioner_taps(name).items()}
    others = [port for ports in found.values() for port in ports if not port.startswith(("linear.", "conv."))]
    if others or adapter.slots:
        why = f"taps {others[0]!r}" if others else f"takes a condition, {next(iter(adapter.slots))!r}"
        what = f"adapter {name!r} ({type(adapter).__name__}) {why}"
        raise CompositionError("not-fusable", what, fits="an adapter that taps only layers, without conditions")
    return {where: ports for where, ports in found.items() if ports}


def _fuse(where: str, part: Any, port: str, adapters: Sequence[tuple[str, Fusable]]) -> None:
    layer = layer_of(part, part.ports, port)
    if layer is None:
        family, _, path = port.partition(".")
        what = f"{type(part).__name__} has no {_LAYERS[family]} at {path!r}"
        fits = f"ldmkit.{_PORTED[family]}, or a port named after the layer's path"
        raise CompositionError("not-fusable", what, fits=fits)
    path = port if where == DENOISER else f"conditioners.{where}.{port}"
    weight, bias = layer.weight, layer.bias
    with torch.no_grad():
        own, added = weight.detach(), weight.new_zeros(len(weight)) if bias is None else bias.detach()
        deltas = [(name, adapter.delta(path, own), adapter.bias_delta(path, added)) for name, adapter in adapters]
        layer.weight = _plus(weight, [_checked(name, delta, weight, path) for name, delta, _ in deltas])
        more = [(name, delta) for name, _, delta in deltas if delta is not None]
        if more and bias is None:
            what = f"adapter {more[0][0]!r} adds to the bias of {path!r}, which has none"
            raise CompositionError("not-fusable", what, fits="an adapter that was made for this network")
        if more and bias is not None:
            layer.bias = _plus(bias, [_checked(name, delta, bias, path) for name, delta in more])


_LAYERS = {"linear": "linear layer", "conv": "convolution"}
_PORTED = {"linear": "PortedLinear", "conv": "PortedConv2d"}


def _plus(own: Tensor, deltas: Sequence[Tensor]) -> nn.Parameter:
    """The tensor plus deltas, summed in float32 or wider."""
    wide = own.detach().to(torch.promote_types(own.dtype, torch.float32), copy=True)
    for delta in deltas:
        wide += delta
    return nn.Parameter(wide.to(own.dtype), requires_grad=own.requires_grad)


def _checked(name: str, delta: object, own: Tensor, port: str) -> Tensor:
    if not isinstance(delta, Tensor) or delta.shape != own.shape or not delta.is_floating_point():
        got = f"{delta.dtype} of {tuple(delta.shape)}" if isinstance(delta, Tensor) else shown(delta)
        what = f"adapter {name!r} breaks its contract: delta({port!r}) returned {got}"
        raise CompositionError("not-fusable", what, fits=f"a floating-point tensor of shape {tuple(own.shape)}")
    return delta.to(own.device)
