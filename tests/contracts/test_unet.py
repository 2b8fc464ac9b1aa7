"""The U-Net's contract: ports, slots, masks, sizes, batches, compiling, training switches, building without memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_denoisers.unet import UNet, UNetConfig
from torch import Tensor

from ldmkit import Plane, Tokens, Vector, attached
from ldmkit.errors import CompositionError, InputError, SpecError
from ldmkit.ports import attach, detach

SMALL: dict[str, Any] = {
    "channels": 3,
    "in_channels": 5,
    "widths": (16, 32),
    "blocks": 1,
    "norm_groups": 8,
    "attention": ("self", "cross"),
    "depth": 2,
    "heads": 2,
    "context_dim": 12,
    "vector": "mlp",
    "vector_dim": 6,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "all slots": {},
    "residual resampling": {"residual_resample": True, "scale_shift": True},
    "pooling": {"resample_conv": False, "mid": "none", "attention": ("none", "cross")},
    "asymmetric padding": {"down_padding": 0, "mid": "self"},
    "self twice": {"context_dim": None},
    "table": {"vector": "table", "vector_dim": 9},
    "timestep": {"vector": "timestep", "vector_dim": None},
    "identity": {"vector": "identity", "vector_dim": None, "time_dim": 24},
    "linear": {"vector": "linear"},
    "no middle": {"mid": "absent", "vector": "none", "vector_dim": None},
    "per level": {
        "blocks": (2, 1),
        "heads": None,
        "head_dim": (4, 16),
        "mid_heads": 1,
        "mid_depth": 1,
        "depth": (1, 2),
    },
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(**changes: Any) -> UNet:
    """A small network whose every parameter is non-zero."""
    net = UNet(UNetConfig.of({**SMALL, **changes})).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * 0.2 + (1.0 if parameter.ndim == 1 else 0.0)
    return net.requires_grad_(False)


def conditions(net: UNet, rows: int, h: int, w: int, seed: int = 5) -> dict[str, Any]:
    signals: dict[str, Any] = {}
    if "context" in net.slots:
        signals["context"] = Tokens(normal(rows, 7, net.slots["context"].dim, seed=seed))
    if "vector" in net.slots:
        wide = net.slots["vector"].dim
        ids = (torch.arange(rows) + seed)[:, None].float() % 9
        signals["vector"] = Vector(ids if wide == 1 else normal(rows, wide, seed=seed))
    if "plane" in net.slots:
        signals["plane"] = Plane(normal(rows, net.slots["plane"].dim, h, w, seed=seed))
    return signals


def call(net: UNet, signals: dict[str, Any], rows: int = 2, h: int = 8, w: int = 6) -> Tensor:
    return net(normal(rows, 3, h, w), torch.tensor([3.0, 700.0, 21.0])[:rows], net.prepare(signals))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_slot_changes_the_output(variant: str) -> None:
    net = network(**VARIANTS[variant])
    signals = conditions(net, 2, 8, 6)
    assert set(signals) == set(net.slots)
    base = call(net, signals)
    assert base.shape == (2, 3, 8, 6) and bool(base.isfinite().all())
    other = conditions(net, 2, 8, 6, seed=6)
    for slot in net.slots:
        changed = call(net, {**signals, slot: other[slot]})
        assert float((changed - base).abs().max()) > 1e-4 * float(base.abs().max()), slot


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (16, 3)])
def test_any_size(variant: str, size: tuple[int, int]) -> None:
    net = network(**VARIANTS[variant])
    if size == (1, 1) and variant in ("residual resampling", "pooling", "asymmetric padding"):
        pytest.skip("a map of one pixel cannot be halved without padding on all sides")
    out = call(net, conditions(net, 2, *size), 2, *size)
    assert out.shape == (2, 3, *size) and bool(out.isfinite().all())


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_do_not_know_of_each_other(variant: str) -> None:
    net = network(**VARIANTS[variant]).double()
    signals = conditions(net, 3, 8, 6)
    signals = {k: v._replace(value=v.value.double()) for k, v in signals.items()}
    x, t = normal(3, 3, 8, 6).double(), torch.tensor([3.0, 700.0, 21.0])
    whole = net(x, t, net.prepare(signals))
    for row in range(3):
        one = {k: v._replace(value=v.value[row : row + 1]) for k, v in signals.items()}
        alone = net(x[row : row + 1], t[row : row + 1], net.prepare(one))
        # float64: another batch size may order sums differently, nothing more.
        assert float((whole[row] - alone[0]).abs().max()) <= 1e-12 * float(whole.abs().max())


def test_masked_tokens_do_not_count() -> None:
    net = network()
    signals = conditions(net, 2, 8, 6)
    value = signals["context"].value
    mask = torch.tensor([[True] * 4 + [False] * 3] * 2)
    masked = call(net, {**signals, "context": Tokens(value, mask)})
    noisy = torch.where(mask[..., None], value, 50 * normal(*value.shape, seed=9))
    assert torch.equal(masked, call(net, {**signals, "context": Tokens(noisy, mask)}))
    torch.testing.assert_close(masked, call(net, {**signals, "context": Tokens(value[:, :4])}), rtol=1e-4, atol=1e-5)
    assert not torch.equal(masked, call(net, signals))


def test_a_row_without_any_token_is_finite() -> None:
    net = network()
    signals = conditions(net, 2, 8, 6)
    mask = torch.tensor([[True] * 7, [False] * 7])
    out = call(net, {**signals, "context": Tokens(signals["context"].value, mask)})
    assert bool(out.isfinite().all())
    assert torch.allclose(out[0], call(net, signals)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["all slots", "residual resampling", "per level"])
def test_ports_are_all_reached_and_leave_no_trace(variant: str) -> None:
    net = network(**VARIANTS[variant])
    signals, keys = conditions(net, 2, 8, 6), list(net.state_dict())
    base = call(net, signals)
    reached: set[str] = set()

    def tap(name: str) -> Any:
        def run(value: Tensor, frame: Any) -> Tensor:
            reached.add(name)
            return value + 0.1 * value.abs().max()

        return run

    for name in net.ports:
        with attached(net.ports, {name: tap(name)}):
            assert not torch.equal(call(net, signals), base), name
            assert list(net.state_dict()) == keys
        assert torch.equal(call(net, signals), base)
    assert reached == set(net.ports)


def test_port_names() -> None:
    net = network()
    names = set(net.ports)
    assert {"input", "mid", *(f"skip.{i}" for i in range(4))} <= names and "skip.4" not in names
    assert {"self.down.0.attn.0", "self.down.1.attn.0.blocks.0", "cross.mid.attn.blocks.1"} <= names
    assert {"linear.up.1.attn.1.blocks.0.cross_attn.to_k", "linear.up.0.attn.0.qkv"} <= names
    layers = {name.removeprefix("linear.") for name in names if name.startswith("linear.")}
    assert all(f"{layer}.weight" in net.state_dict() for layer in layers)


def test_taps_see_what_the_docstrings_say() -> None:
    net = network()
    seen: dict[str, tuple[int, ...]] = {}

    def tap(name: str, key: str) -> Any:
        def run(value: Tensor, frame: Any) -> Tensor:
            seen[name] = (*value.shape, *frame.scratch[key].shape) if key else tuple(value.shape)
            assert frame.sigma in (None, 2.5)
            return value

        return run

    path = "down.1.attn.0.blocks.0"
    taps = {
        "input": tap("input", ""),
        "skip.0": tap("skip.0", ""),
        f"cross.{path}": tap("cross", "query"),
        f"linear.{path}.ff.proj": tap("linear", "input"),
        f"self.{path}": tap("self", ""),
    }
    with attached(net.ports, taps):
        net(normal(2, 3, 8, 6), torch.tensor([3.0, 7.0]), net.prepare(conditions(net, 2, 8, 6)), 2.5)
    assert seen == {
        "input": (2, 5, 8, 6),
        "skip.0": (2, 16, 8, 6),
        "cross": (2, 12, 32, 2, 2, 12, 16),
        "linear": (2, 12, 256, 2, 12, 32),
        "self": (2, 12, 32),
    }


def test_attaching_twice_and_detaching_once() -> None:
    net = network()
    signals = conditions(net, 2, 8, 6)
    base = call(net, signals)
    taps: dict[str, Any] = {"mid": lambda value, frame: value * 2}
    attach(net.ports, taps)
    once = call(net, signals)
    attach(net.ports, taps)
    detach(net.ports, taps)
    assert torch.equal(call(net, signals), once) and not torch.equal(once, base)
    detach(net.ports, taps)
    assert torch.equal(call(net, signals), base)


@pytest.mark.parametrize("variant", ["all slots", "residual resampling", "pooling", "table", "per level"])
def test_compiles_without_a_break(variant: str) -> None:
    torch._dynamo.reset()
    net = network(**VARIANTS[variant])
    context = net.prepare(conditions(net, 2, 7, 6))
    x, t = normal(2, 3, 7, 6), torch.tensor([3.0, 700.0])
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(x, t, context), net(x, t, context))


def test_builds_on_the_meta_device_and_takes_weights() -> None:
    net = network()
    with torch.device("meta"):
        empty = UNet(net.config)
    assert all(p.device.type == "meta" for p in empty.parameters())
    empty.load_state_dict(net.state_dict(), assign=True)
    assert not [n for n, t in (*empty.named_parameters(), *empty.named_buffers()) if t.device.type == "meta"]
    signals = conditions(net, 2, 8, 6)
    assert torch.equal(call(empty.eval(), signals), call(net, signals))


def test_no_global_random_numbers_and_no_writing_to_inputs() -> None:
    net = network()
    signals = conditions(net, 2, 8, 6)
    x, t = normal(2, 3, 8, 6), torch.tensor([3.0, 7.0])
    copies = [x.clone(), t.clone(), *(v.value.clone() for v in signals.values())]
    before = torch.get_rng_state()
    with torch.no_grad():
        context = net.prepare(signals)
        first = net(x, t, context)
        assert torch.equal(net(x, t, context), first)
    assert torch.equal(torch.get_rng_state(), before)
    for was, now in zip(copies, [x, t, *(v.value for v in signals.values())], strict=True):
        assert torch.equal(was, now)


def test_gradients_with_and_without_recomputation_and_without_gradient_mode() -> None:
    net = network().requires_grad_(True).train()
    signals = conditions(net, 2, 8, 6)
    grads = []
    for recompute in (False, True):
        net.gradient_checkpointing = recompute
        net.zero_grad()
        out = call(net, signals)
        out.square().mean().backward()
        grads.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert len(grads[0]) == len(list(net.parameters()))
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        assert torch.equal(call(net, signals), out.detach())


def test_dropout_is_for_training_only() -> None:
    plain, dropping = network(), network(dropout=0.5)
    signals = conditions(plain, 2, 8, 6)
    assert torch.equal(call(plain, signals), call(dropping, signals))
    assert not torch.equal(call(plain, signals), call(dropping.train(), signals))


def test_half_precision_follows_the_weights() -> None:
    net = network(upcast_attention=True)
    signals = conditions(net, 2, 8, 6)
    want = call(net, signals)
    got = call(net.to(torch.bfloat16), signals)
    assert got.dtype == torch.bfloat16
    assert float((got.float() - want).abs().max()) <= 0.1 * float(want.abs().max())


def test_a_new_network_starts_from_zero() -> None:
    net = UNet(UNetConfig.of(SMALL))
    assert not call(net, conditions(net, 2, 8, 6)).any()


def test_missing_and_wrong_conditions_are_named() -> None:
    net = network()
    signals = conditions(net, 2, 8, 6)
    for slot in net.slots:
        with pytest.raises(CompositionError, match=slot):
            net.prepare({k: v for k, v in signals.items() if k != slot})
    with pytest.raises(CompositionError, match="context"):
        net.prepare({**signals, "context": signals["vector"]})
    with pytest.raises(InputError, match="plane"):
        call(net, {**signals, "plane": Plane(normal(2, 2, 4, 4))})
    with pytest.raises(CompositionError):
        from ldmkit.contracts import Context

        net(normal(2, 3, 8, 6), torch.zeros(2), Context(signals))


@pytest.mark.parametrize(
    "change,word",
    [
        ({"heads": 3}, "heads"),
        ({"heads": None}, "heads"),
        ({"head_dim": 8}, "heads"),
        ({"head_dim": 12, "heads": None}, "head"),
        ({"widths": (16, 30)}, "groups"),
        ({"attention": ("self",)}, "levels"),
        ({"blocks": (1, 0)}, "blocks"),
        ({"in_channels": 2}, "in_channels"),
        ({"vector_dim": None}, "vector"),
        ({"vector": "none"}, "vector"),
        ({"atention": ("self", "self")}, "attention"),
    ],
)
def test_configs_that_make_no_network(change: dict[str, Any], word: str) -> None:
    with pytest.raises(SpecError) as failure:
        UNetConfig.of({**SMALL, **change})
    assert word in str(failure.value)
