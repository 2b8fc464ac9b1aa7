"""The U-Net: every promise of a denoiser in configurations beyond its examples; ports, masks, training switches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_denoisers.unet import UNet, UNetConfig
from torch import Tensor

from ldmkit import Example, Plane, Tokens, Vector, attached
from ldmkit.contracts.ports import attach, detach
from ldmkit.errors import CompositionError, InputError, SpecError
from ldmkit.testing.checks import Report, checks, run
from ldmkit.testing.denoiser.checks import subject

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
    "pooling": {
        "resample_conv": False,
        "mid": "none",
        "attention": ("none", "cross"),
        "vector": "identity",
        "vector_dim": None,
        "time_dim": 64,
    },
    "asymmetric padding": {"down_padding": 0, "mid": "absent", "vector": "linear", "depth": 1},
    "per level": {
        "blocks": (2, 1),
        "heads": None,
        "head_dim": (4, 16),
        "mid_heads": 1,
        "mid_depth": 1,
        "depth": (1, 2),
    },
}
"""Further ones are the class's examples."""
SLOW = ("compiles", "plans")
"""Checks that the examples are enough for."""


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
def test_every_variant_keeps_the_promises_of_a_denoiser(variant: str) -> None:
    made = subject(UNet, Example({**SMALL, **VARIANTS[variant]}))
    outcomes = [run(one, made) for one in checks("denoiser") if one.name not in SLOW]
    Report(variant, tuple(outcomes)).require()


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
        f"attn.{path}": tap("attn", "value"),
        "attn.down.0.attn.0": tap("attn of a map", "value"),
    }
    with attached(net.ports, taps):
        net(normal(2, 3, 8, 6), torch.tensor([3.0, 7.0]), net.prepare(conditions(net, 2, 8, 6)), 2.5)
    assert seen == {
        "input": (2, 5, 8, 6),
        "skip.0": (2, 16, 8, 6),
        "cross": (2, 12, 32, 2, 2, 12, 16),
        "linear": (2, 12, 256, 2, 12, 32),
        "self": (2, 12, 32),
        "attn": (2, 12, 32, 2, 2, 12, 16),
        "attn of a map": (2, 48, 16, 2, 2, 48, 8),
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


@pytest.mark.parametrize("variant", ["pooling"])
def test_the_whole_network_compiles_without_a_break(variant: str) -> None:
    """The promise is about its blocks; plan "exported" and others need the whole."""
    torch._dynamo.reset()
    net = network(**VARIANTS[variant])
    context = net.prepare(conditions(net, 2, 7, 6))
    x, t = normal(2, 3, 7, 6), torch.tensor([3.0, 700.0])
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(x, t, context), net(x, t, context))


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
        from ldmkit.contracts.step import Context

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
