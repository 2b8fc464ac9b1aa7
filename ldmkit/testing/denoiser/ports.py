"""Checks of a denoiser's ports."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts.nn import layer_of
from ldmkit.contracts.ports import Port, attached
from ldmkit.testing.batches import close, differ, expect_state, normal, same, snapshot
from ldmkit.testing.checks import NotApplicable, check, expect, fail
from ldmkit.testing.denoiser.subject import DenoiserSubject, Recorder, call, jolt, taps_of, with_probe

FAMILIES = re.compile(
    r"input|mid|(skip|deep)\.\d+|down\.\d+(\.(\d+|resample))?|(attn|block|cross|joint|self|linear|conv)\..+"
)
KNOWN = (
    "input, down.<level>[.<block>|.resample], (skip|deep).<i>, mid, (attn|self|block|cross|joint|linear|conv).<path>"
)

Calls = list[tuple[str, Tensor, Any]]


@check("denoiser", "port-names")
def port_names(s: DenoiserSubject) -> None:
    """`ports` maps names of the known families to `ldmkit.Port` objects, each under one name.

    `input`, `down.<level>`, `down.<level>.<block>`, `down.<level>.resample`, `skip.<i>`, `mid`, `attn.<path>`,
    `self.<path>`, `block.<path>`, `cross.<path>`, `joint.<path>`, `linear.<path>`, `conv.<path>`: by these names an
    adapter finds what it can extend in any denoiser.
    """
    part = s.make()
    for name, port in part.ports.items():
        known = isinstance(name, str) and FAMILIES.fullmatch(name) is not None
        expect(known, f"port names of the families {KNOWN}", f"{name!r}")
        expect(isinstance(port, Port), f"a Port at {name!r}", type(port).__name__)
    twice = len(part.ports) - len({id(port) for port in part.ports.values()})
    expect(twice == 0, "a separate Port object under every name", f"{twice} name(s) share one")


@check("denoiser", "ports-called")
def ports_called(s: DenoiserSubject) -> None:
    """Every published port is called, in `prepare` or in `forward`.

    Adapters that attach to a port which is never called have no effect.
    """
    part = _with_ports(s)
    found = {name for name, _, _ in _calls(s, part)}
    idle = [name for name in part.ports if name not in found]
    expect(not idle, "a call of every port", f"none of {len(idle)}: {idle[:4]}")


@check("denoiser", "ports-matter")
def ports_matter(s: DenoiserSubject) -> None:
    """At every port, the network continues with the value that the tap returns.

    Call a port as `h = self.port(h, frame)`; if its result is not used, adapters have no effect.
    """
    part = _with_ports(s)
    given = s.given(part)
    with torch.no_grad():
        base = call(part, given)
        for name in part.ports:
            with attached(part.ports, {name: jolt}):
                expect(differ([call(part, given)], [base]), f"a different F with a tap at {name!r}", "the same F")


@check("denoiser", "detach")
def detach(s: DenoiserSubject) -> None:
    """Attaching to all ports and detaching again restores outputs bit for bit; state-dict keys never change.

    Adapters must leave no trace: ports hold no weights, and nothing that was computed with a tap may be stored.
    """
    part = _with_ports(s)
    before = snapshot(part)
    given = s.given(part)
    with torch.no_grad():
        base = call(part, given)
        with attached(part.ports, taps_of(part, jolt)):
            call(part, given)
            expect_state(part.state_dict(), before, "with taps attached")
        expect_state(part.state_dict(), before, "after detaching")
        same([call(part, given)], [base], "F after detaching")


@check("denoiser", "port-copies")
def port_copies(s: DenoiserSubject) -> None:
    """A deep copy has separate ports.

    Taps attached to the copy must act only there: build the mapping `ports` from submodules, so that both are copied
    together.
    """
    part = _with_ports(s)
    other = copy.deepcopy(part)
    given = s.given(part)
    with torch.no_grad():
        base = call(part, given)
        with attached(other.ports, taps_of(other, jolt)):
            expect(differ([call(other, given)], [base]), "taps on the copy's ports to act in the copy", "they do not")
            same([call(part, given)], [base], "F of the original, with taps on its copy")


@check("denoiser", "frames")
def frames(s: DenoiserSubject) -> None:
    """Taps get a frame with the noise level, times, and the states of adapters.

    During `forward`, `frame.sigma` is the argument `sigma`, `frame.t` has a time for every row, and
    `frame.context.adapters` holds the states that adapters prepared. All calls of one forward pass share
    `frame.scratch`, in which a tap at `input` can store what another adds at a skip.
    """
    part = _with_ports(s)
    given = s.given(part)
    with torch.no_grad():
        context = with_probe(part.prepare(given["signals"]))
        seen: Calls = []
        with attached(part.ports, {name: Recorder(name, seen) for name in part.ports}):
            part(given["x"], given["t"], context, 2.5)
    for name, _, frame in seen:
        expect(frame.sigma == 2.5, f"frame.sigma at {name!r} to be what forward got, 2.5", f"{frame.sigma!r}")
        rows = tuple(frame.t.shape)
        expect(rows == tuple(given["t"].shape), f"frame.t at {name!r} of shape {tuple(given['t'].shape)}", f"{rows}")
        there = frame.context is not None and "probe" in frame.context.adapters
        expect(there, f"frame.context.adapters at {name!r} with the prepared state", "it is missing")
        expect(isinstance(frame.scratch, dict), f"a dict frame.scratch at {name!r}", type(frame.scratch).__name__)


@check("denoiser", "port-states")
def port_states(s: DenoiserSubject) -> None:
    """At every port, a tap finds the state that its adapter prepared, and acts.

    Taps do nothing in runs without their adapter. During `prepare` no adapter has prepared its state yet, so ports that
    are called there, such as those of key and value projections, must be called again in `adapted`.
    """
    part = _with_ports(s)
    given = s.given(part)

    def tap(value: Tensor, frame: Any) -> Tensor:
        return jolt(value, frame) if "probe" in frame.context.adapters else value

    with torch.no_grad():
        base = call(part, given)
        for name in part.ports:
            with attached(part.ports, {name: tap}):
                context = part.adapted(with_probe(part.prepare(given["signals"])))
                found = part(given["x"], given["t"], context, None)
                expect(differ([found], [base]), f"a different F by an adapter's tap at {name!r}", "the same F")


@check("denoiser", "linear-layers")
def linear_layers(s: DenoiserSubject) -> None:
    """What a tap at `linear.<path>` or `conv.<path>` adds is equivalent to a change of the layer's weight.

    So adapters can be fused. The port belongs to an `ldmkit.PortedLinear` or `PortedConv2d`, or its path is that of an
    `nn.Linear` or `nn.Conv2d`; taps find the layer's input in `frame.scratch["input"]`.
    """
    part = _with_ports(s)
    names = [name for name in part.ports if name.startswith(("linear.", "conv."))]
    if not names:
        raise NotApplicable("it publishes no ports of layers")
    given, other = s.given(part), copy.deepcopy(part)
    for name in names:
        layer = layer_of(other, other.ports, name)
        if layer is None:
            kind = "Linear" if name.startswith("linear.") else "Conv2d"
            fail(f"a layer at {name!r}", f"neither a Ported{kind} with that port nor an nn.{kind} at that path")
        own, delta = layer.weight, 0.3 * normal(*layer.weight.shape, seed=3).to(layer.weight)

        def tap(value: Tensor, frame: Any, delta: Tensor = delta, layer: Any = layer) -> Tensor:
            x = frame.scratch["input"]
            flat = delta.ndim == 2
            added: Tensor = x @ delta.T if flat else F.conv2d(x, delta, None, layer.stride, layer.padding)
            return value + added

        with torch.no_grad():
            with attached(part.ports, {name: tap}):
                wanted = call(part, given)
            layer.weight = torch.nn.Parameter(own + delta, requires_grad=False)
            close([call(other, given)], [wanted], f"F with a change of the weight at {name!r}", 1e-4)
            layer.weight = own


@check("denoiser", "port-values")
def port_values(s: DenoiserSubject) -> None:
    """Ports carry values of the form that their family defines.

    `input`, `down.<level>`, `skip.<i>`, `deep.<i>` and `mid` carry feature maps (B, C, h, w), with the axes of the
    latents. `block.<path>` carries the residual stream between two attentions, (B, positions, C). `linear.<path>` and
    `conv.<path>` carry the output of a layer; its input is in `frame.scratch["input"]`, for low-rank updates.
    `cross.<path>` carries the result of the attention to tokens before its output projection, (B, positions, C); the
    queries (B, heads, positions, width) are in `frame.scratch["query"]`, for attention to further tokens.
    """
    part = _with_ports(s)
    found: dict[str, tuple[Tensor, Any]] = {}

    def keep(name: str) -> Any:
        def tap(value: Tensor, frame: Any) -> Tensor:
            key = {"linear": "input", "conv": "input", "cross": "query"}.get(name.split(".")[0], "")
            found[name] = (value, frame.scratch.get(key))
            return value

        return tap

    given = s.given(part)
    with torch.no_grad(), attached(part.ports, {name: keep(name) for name in part.ports}):
        call(part, given)
    for name, (value, beside) in found.items():
        family = name.split(".")[0]
        if family in ("input", "down", "skip", "deep", "mid"):
            fits = value.ndim == 2 + part.latent_axes
            expect(fits, f"a map (B,C,h,w), with the latents' axes, at {name!r}", f"{tuple(value.shape)}")
        elif family == "block":
            expect(value.ndim == 3, f"tokens (B, positions, C) at {name!r}", f"{tuple(value.shape)}")
        elif family == "conv":
            fits = isinstance(beside, Tensor) and beside.ndim == value.ndim and beside.shape[0] == value.shape[0]
            expect(fits, f"the layer's input in frame.scratch['input'] at {name!r}", _shape(beside))
        elif family == "linear":
            fits = isinstance(beside, Tensor) and beside.shape[:-1] == value.shape[:-1]
            expect(fits, f"the layer's input in frame.scratch['input'] at {name!r}", _shape(beside))
        elif family == "cross":
            fits = isinstance(beside, Tensor) and beside.ndim == 4 and beside.shape[2] == value.shape[1]
            expect(fits, f"the queries (B,H,L,D) in frame.scratch['query'] at {name!r}", _shape(beside))


def _shape(value: Any) -> str:
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"


def _with_ports(s: DenoiserSubject) -> Any:
    part = s.make()
    if not part.ports:
        raise NotApplicable("it publishes no ports")
    return part


def _calls(s: DenoiserSubject, part: Any) -> Calls:
    seen: Calls = []
    given = s.given(part)
    with torch.no_grad(), attached(part.ports, {name: Recorder(name, seen) for name in part.ports}):
        call(part, given)
    return seen
