"""Execution plans: the same results as the eager network, and clear refusals.

Tolerances: float32 plans agree to 1e-5 of the largest value (sums run in another order); bfloat16 to 5e-2 of it (8
bits of mantissa; fused operations round less often than eager ones, so neither is the exact one).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_parts
import torch
from torch import Tensor

import ldmkit
from ldmkit import Frame, Plane, Tokens, Vector
from ldmkit.contracts.ports import attached
from ldmkit.errors import CompositionError
from ldmkit.plans import graphed
from ldmkit.plans.base import shadow
from ldmkit.plans.compiled import Compiled
from ldmkit.plans.graphed import _Recording, tensors_in, with_tensors

BASE: dict[str, Any] = {"channels": 4, "widths": (16, 32), "blocks": 1, "norm_groups": 4, "heads": 2}
CROSS: dict[str, Any] = {**BASE, "attention": ("none", "cross"), "context_dim": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd": {**CROSS, "widths": (16, 32, 32), "attention": ("cross", "cross", "none"), "blocks": 2},
    "class-conditional": {**CROSS, "context_dim": 12, "heads": None, "head_dim": 8, "depth": 2},
    "sdxl": {**CROSS, "depth": (1, 2), "mid_depth": 3, "vector": "mlp", "vector_dim": 10, "linear_projections": True},
    "unconditional": {**BASE, "attention": ("self", "self"), "heads": None, "head_dim": 8, "resample_conv": False},
    "adm": {**BASE, "attention": ("none", "self"), "scale_shift": True, "residual_resample": True,
            "vector": "table", "vector_dim": 7},
    "plane": {**CROSS, "in_channels": 9, "down_padding": 0, "upcast_attention": True},
    "no-context": {**CROSS, "context_dim": None, "mid": "self", "mid_groups": 0},
    "no-middle": {**BASE, "mid": "absent", "freq_shift": 1.0, "cos_first": False},
}  # fmt: skip


def network(name: str, dtype: torch.dtype = torch.float32) -> Any:
    return tiny_parts.part("denoiser", "unet", CONFIGS[name]).to(dtype)


def inputs(unet: Any, size: tuple[int, int] = (8, 8), rows: int = 3) -> tuple[Tensor, Tensor, Any]:
    """x, t (another one in every row) and a context."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(unet.dtype)

    signals: dict[str, Any] = {}
    config = unet.config
    if "context" in unet.slots:
        mask = torch.ones(rows, 5, dtype=torch.bool)
        mask[0, 3:] = False
        signals["context"] = Tokens(normal(rows, 5, config.context_dim), mask)
    if config.vector == "table":
        signals["vector"] = Vector(torch.arange(rows).float()[:, None])
    elif "vector" in unet.slots:
        signals["vector"] = Vector(normal(rows, config.vector_dim))
    if "plane" in unet.slots:
        signals["plane"] = Plane(normal(rows, config.plane_channels, *size))
    return normal(rows, 4, *size), torch.tensor([3.0, 500.0, 999.0])[:rows], unet.prepare(signals)


def packs(dtype: torch.dtype) -> bool:
    """Whether this machine's oneDNN packs weights of a dtype: bfloat16 takes instructions that not every CPU has."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def prepacked(unet: Any) -> Any:
    """The plan `prepacked`; where the machine lacks what it takes, the refusal is checked, and the test ends there."""
    if packs(unet.dtype):
        return unet.plan("prepacked")
    with pytest.raises(CompositionError, match=r"plan-unavailable.*(no instructions for bfloat16|without oneDNN)"):
        unet.plan("prepacked")
    pytest.skip(f"this CPU, or this torch, packs no {unet.dtype}: the refusal was checked")


def deviation(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).abs().max() / want.double().abs().max())


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (9, 7)])
@pytest.mark.parametrize("name", CONFIGS)
def test_prepacked_is_eager(name: str, size: tuple[int, int]) -> None:
    unet = network(name)
    keys = list(unet.state_dict())
    packed = prepacked(unet)
    x, t, context = inputs(unet, size)
    before = x.clone()
    want = unet(x, t, context)
    got = packed(x, t, context, None)
    assert got.shape == want.shape and got.dtype == want.dtype and got.is_contiguous()
    assert deviation(got, want) < 1e-5
    assert torch.equal(x, before), "a caller's tensor was written to"
    assert torch.equal(packed(x, t, context, None), got), "a second call differs from the first"
    assert list(unet.state_dict()) == keys


@pytest.mark.parametrize("name", ["sd", "adm", "sdxl"])
def test_prepacked_takes_one_time_for_all_rows(name: str) -> None:
    # an expanded time is what the pipeline passes; without a vector its shift becomes a bias
    unet = network(name)
    x, _, context = inputs(unet)
    one = torch.tensor(501.0).expand(3)
    assert deviation(prepacked(unet)(x, one, context, None), unet(x, one.contiguous(), context)) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_prepacked_bfloat16(name: str) -> None:
    unet = network(name, torch.bfloat16)
    x, t, context = inputs(unet)
    got = prepacked(unet)(x, t, context, None)
    assert got.dtype is torch.bfloat16
    assert deviation(got, unet(x, t, context)) < 5e-2


@pytest.mark.parametrize("port", ["input", "skip.0", "skip.3", "mid", "linear.", "cross.", "self.", "attn."])
def test_prepacked_calls_every_port(port: str) -> None:
    unet = network("class-conditional")
    packed = prepacked(unet)
    x, t, context = inputs(unet)
    plain = packed(x, t, context, None)
    # keys and values are projected in prepare(): their ports are not of the step
    names = [n for n in unet.ports if n.startswith(port) and "cross_attn.to_k" not in n and "cross_attn.to_v" not in n]
    assert names
    for name in names:
        seen: list[float | None] = []

        def tap(value: Tensor, frame: Frame, seen: list[float | None] = seen) -> Tensor:
            seen.append(frame.sigma)
            return value * 1.5 + 0.1

        with attached(unet.ports, {name: tap}):
            want = unet(x, t, context, 2.0)
            got = packed(x, t, context, 2.0)
        assert seen == [2.0, 2.0], name
        assert deviation(got, want) < 1e-5, name
        assert not torch.equal(got, plain), name
    assert torch.equal(packed(x, t, context, None), plain), "detaching did not restore the outputs"


def test_prepacked_follows_a_size_that_changes_and_comes_back() -> None:
    unet = network("sd")
    packed = prepacked(unet)
    for size in ((8, 8), (16, 8), (12, 12), (20, 8), (8, 8)):
        x, t, context = inputs(unet, size)
        assert deviation(packed(x, t, context, None), unet(x, t, context)) < 1e-5


def test_prepacked_gives_gradients_by_the_eager_way() -> None:
    unet = network("sd")
    x, t, context = inputs(unet)
    gradients = []
    for call in (unet, prepacked(unet)):
        leaf = x.clone().requires_grad_()
        call(leaf, t, context, None).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_two_threads_share_a_packed_network() -> None:
    unet = network("sd")
    packed = prepacked(unet)
    jobs = [inputs(unet, size) for size in ((8, 8), (16, 16))]
    wanted = [unet(*job) for job in jobs]
    worst = [0.0, 0.0]

    def work(i: int) -> None:
        for _ in range(20):
            worst[i] = max(worst[i], deviation(packed(*jobs[i], None), wanted[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < max(worst) < 1e-5


def change_dtype(unet: Any) -> None:
    unet.to(torch.bfloat16)


def load_others(unet: Any) -> None:
    unet.load_state_dict({key: value.clone() for key, value in unet.state_dict().items()}, assign=True)


def write_in_place(unet: Any) -> None:
    unet.conv_in.weight.mul_(2)


@pytest.mark.parametrize("plan", ["prepacked", "exported", "compiled"])
@pytest.mark.parametrize("change", [change_dtype, load_others, write_in_place])
def test_changed_weights_are_refused(change: Any, plan: str) -> None:
    unet = network("unconditional")
    made = unet.plan(plan)
    change(unet)
    with pytest.raises(CompositionError, match=f"stale-plan.*planned\\('{plan}'\\)"):
        made(*inputs(unet), None)


def test_a_pipeline_moved_to_another_dtype_must_be_planned_again(class_pipe: ldmkit.Pipeline) -> None:
    pipe = tiny_parts.class_pipeline()
    planned = pipe.planned("prepacked")
    pipe.to(dtype=torch.bfloat16)
    with pytest.raises(CompositionError, match="stale-plan"):
        planned({"label": 1}, steps=2)
    if not packs(torch.bfloat16):
        with pytest.raises(CompositionError, match=r"plan-unavailable.*no instructions for bfloat16"):
            pipe.planned("prepacked")
        return
    again = pipe.planned("prepacked")({"label": 1}, steps=2)
    # two steps of a random network; 0.1 of the range is far below what another picture differs by
    assert (again.images - pipe({"label": 1}, steps=2).images).abs().max() < 0.1


@pytest.mark.parametrize("plan", ["prepacked", "auto"])
def test_a_planned_pipeline_draws_the_same(class_pipe: ldmkit.Pipeline, plan: str) -> None:
    planned = class_pipe.planned(plan)
    assert class_pipe.plan == "eager" and class_pipe.network is None and planned.plan == plan
    assert planned.denoiser is class_pipe.denoiser and planned.spec == class_pipe.spec
    want = class_pipe({"label": 2}, guidance=3.0, seeds=(0, 1)).latents
    got = planned({"label": 2}, guidance=3.0, seeds=(0, 1)).latents
    assert deviation(got, want) < 1e-4  # four steps with guidance amplify 1e-6 a step
    assert not torch.equal(got, want), "the plan was not used"


def test_eager_and_unknown_plans(class_pipe: ldmkit.Pipeline) -> None:
    unet = class_pipe.denoiser
    assert unet.plan("eager") is unet
    with pytest.raises(CompositionError, match=r"unknown-plan.*'prepackd'.*did you mean 'prepacked'") as caught:
        class_pipe.planned("prepackd")
    assert caught.value.code == "compose.unknown-plan"
    with pytest.raises(CompositionError, match="float32 or bfloat16, the network is float64"):
        copy.deepcopy(unet).double().plan("prepacked")
    assert copy.deepcopy(unet).double().plan("auto")(*inputs64(unet), None).dtype is torch.float64


def inputs64(unet: Any) -> tuple[Tensor, Tensor, Any]:
    twin = copy.deepcopy(unet).double()
    signals = {"context": Tokens(torch.ones(1, 2, 8, dtype=torch.float64))}
    return torch.ones(1, 3, 8, 8, dtype=torch.float64), torch.tensor([5.0]), twin.prepare(signals)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_graphed_needs_cuda(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(CompositionError, match=r"plan-unavailable.*CUDA"):
        class_pipe.planned("graphed")


class FakeGraph:
    """A recording that computes, when it is replayed, from what its buffers hold."""

    def __init__(self, record: Callable[[], None]) -> None:
        self.replay = record


def test_an_interrupt_between_a_graphs_buffers_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled half from one context and half from another, they are filled anew for the next call."""
    unet = network("sd")
    x, t, first = inputs(unet)
    second = with_tensors(first, lambda value: value if value.dtype == torch.bool else value * 1.5)
    wanted = unet(x, t, first)
    made: Any = object.__new__(_Recording)
    made._x, made._t, made._fixed, made.context = x.clone(), t.clone(), with_tensors(first, torch.Tensor.clone), first
    made._out, made._done = torch.empty_like(wanted), SimpleNamespace(record=lambda stream: None)
    made._graph = FakeGraph(lambda: made._out.copy_(unet(made._x, made._t, made._fixed)))
    stream = SimpleNamespace(wait_event=lambda event: None)
    monkeypatch.setattr(graphed.torch.cuda, "current_stream", lambda device: stream)
    assert torch.equal(made.replay(x, t, first), wanted)

    leaves = {id(context): list(tensors_in(context)) for context in (second, made._fixed)}

    def interrupted(context: Any) -> Iterator[Tensor]:
        yield from leaves[id(context)][:-1]
        if context is second:
            raise KeyboardInterrupt
        yield leaves[id(context)][-1]

    monkeypatch.setattr(graphed, "tensors_in", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.replay(x, t, second)
    monkeypatch.setattr(graphed, "tensors_in", tensors_in)
    assert torch.equal(made.replay(x, t, first), wanted)
    assert torch.equal(made.replay(x, t, second), unet(x, t, second))


def test_exported_refuses_taps() -> None:
    unet = network("unconditional")
    made = unet.plan("exported")
    with (
        attached(unet.ports, {"mid": lambda value, frame: value}),
        pytest.raises(CompositionError, match=r"plan-tapped.*'mid'"),
    ):
        made(*inputs(unet), None)


def test_a_shadow_shares_weights_and_ports_and_nothing_else() -> None:
    unet = network("sd")
    twin = shadow(unet)
    ours, theirs = dict(unet.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys() and all(ours[key] is theirs[key] for key in ours)
    assert twin.conv_in is not unet.conv_in and twin.mid_port is unet.mid_port
    x, t, context = inputs(unet)
    with attached(unet.ports, {"mid": lambda value, frame: value * 2}):
        assert torch.equal(twin(x, t, context), unet(x, t, context))


def test_compiled_is_eager_and_leaves_the_module_alone() -> None:
    # backend "eager" traces and guards as every backend does, without a C++ compiler
    unet = network("class-conditional")
    compiled = Compiled(unet, backend="eager")
    x, t, context = inputs(unet)
    want = unet(x, t, context)
    assert deviation(compiled(x, t, context, None), want) < 1e-6
    assert all(module._compiled_call_impl is None for module in unet.modules())
    with attached(unet.ports, {"mid": lambda value, frame: value * 2}):
        assert deviation(compiled(x, t, context, None), unet(x, t, context)) < 1e-6


def test_contexts_are_walked_for_their_tensors() -> None:
    unet = network("sd")
    _, _, context = inputs(unet)
    leaves = list(tensors_in(context))
    assert any(leaf is context.projected.kv[0][1] for leaf in leaves)
    copied = with_tensors(context, torch.Tensor.clone)
    assert type(copied) is type(context) and len(list(tensors_in(copied))) == len(leaves)
    assert all(a is not b and torch.equal(a, b) for a, b in zip(leaves, tensors_in(copied), strict=True))


@pytest.mark.slow
def test_exported_is_eager() -> None:
    unet = network("class-conditional")
    x, t, context = inputs(unet)
    got = unet.plan("exported")(x, t, context, None)
    assert deviation(got, unet(x, t, context)) < 1e-5
