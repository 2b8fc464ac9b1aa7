"""Patches: equal to the whole where they must be, cut with their planes and adapters, refused where they cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_denoisers.patched import PatchedConfig, PatchedDenoiser, border_distance, patches_of
from ldmkit_denoisers.unet import UNet, UNetConfig
from torch import Tensor

from ldmkit import Denoiser, Plane, Signal, Slot, attached
from ldmkit.contracts.step import Context
from ldmkit.errors import CompositionError, SpecError


class Pointwise(Denoiser):
    """A real network without any spatial reach: F = sin(x) * t + plane."""

    channels = 2
    slots: Mapping[str, Slot] = {"plane": Slot("plane", 2, required=True)}
    ports: Mapping[str, Any] = {}

    def prepare(self, signals: Mapping[str, Signal]) -> Context:
        return Context(signals)

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        plane = context.signals["plane"]
        assert isinstance(plane, Plane)
        return x.sin() * t.view(-1, 1, 1, 1) + plane.value


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unet() -> UNet:
    config = {"channels": 2, "in_channels": 4, "widths": (8, 16), "blocks": 1, "norm_groups": 4, "head_dim": 8}
    net = UNet(UNetConfig.of({**config, "attention": ("none", "self")})).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator) + (1.0 if parameter.ndim == 1 else 0.0)
    return net.requires_grad_(False)


@pytest.mark.parametrize("settings", [{}, {"tie_breaker": True}, {"stride": 3}, {"kernel": (5, 8), "stride": (2, 7)}])
@pytest.mark.parametrize("size", [(16, 16), (17, 11), (8, 30), (6, 6)])
def test_a_pointwise_network_is_not_changed(settings: dict[str, Any], size: tuple[int, int]) -> None:
    inner = Pointwise()
    patched = PatchedDenoiser.wrap(inner, **{"kernel": 8, "stride": 4, **settings})
    x, t, plane = normal(2, 2, *size), torch.tensor([1.0, 5.0]), {"plane": Plane(normal(2, 2, *size, seed=1))}
    got = patched(x, t, patched.prepare(plane))
    # Weighted means in float32 round: a few units in the last place.
    torch.testing.assert_close(got, inner(x, t, inner.prepare(plane)), rtol=1e-5, atol=1e-5)


def test_disjoint_patches_are_independent() -> None:
    net = unet()
    patched = PatchedDenoiser.wrap(net, kernel=8, stride=8)
    x, t, plane = normal(1, 2, 16, 24), torch.tensor([9.0]), normal(1, 2, 16, 24, seed=1)
    got = patched(x, t, patched.prepare({"plane": Plane(plane)}))
    for top in (0, 8):
        for left in (0, 8, 16):
            area = (..., slice(top, top + 8), slice(left, left + 8))
            alone = net(x[area], t, net.prepare({"plane": Plane(plane[area])}))
            torch.testing.assert_close(got[area], alone, rtol=1e-5, atol=1e-5)


def test_one_patch_is_the_inner_network_bit_for_bit() -> None:
    net = unet()
    patched = PatchedDenoiser.wrap(net, kernel=32, stride=16)
    x, t, signals = normal(1, 2, 16, 24), torch.tensor([9.0]), {"plane": Plane(normal(1, 2, 16, 24, seed=1))}
    assert torch.equal(patched(x, t, patched.prepare(signals)), net(x, t, net.prepare(signals)))
    assert set(patched.state_dict()) == {f"inner.{key}" for key in net.state_dict()}
    assert patched.slots == net.slots and patched.ports is net.ports


def test_overlap_is_the_weighted_mean_of_the_patches() -> None:
    net = unet()
    patched = PatchedDenoiser.wrap(net, kernel=(8, 8), stride=4)
    x, t, plane = normal(1, 2, 8, 12), torch.tensor([9.0]), normal(1, 2, 8, 12, seed=1)
    got = patched(x, t, patched.prepare({"plane": Plane(plane)}))
    weight = border_distance(8, 8).clamp(0.01, 0.5)
    sides = [net(x[..., s : s + 8], t, net.prepare({"plane": Plane(plane[..., s : s + 8])})) for s in (0, 4)]
    left, right = weight[:, 4:], weight[:, :4]
    want = (sides[0][..., 4:] * left + sides[1][..., :4] * right) / (left + right)
    torch.testing.assert_close(got[..., 4:8], want, rtol=1e-5, atol=1e-5)


def test_a_hint_is_cut_with_the_patch() -> None:
    net = unet()
    control = ControlNet.from_denoiser(net, hint_channels=1, hint_widths=(4, 4)).eval()
    for parameter in (*control.zero.parameters(), *control.zero_mid.parameters(), *control.hint.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(2))
    patched = PatchedDenoiser.wrap(net, kernel=8, stride=8)
    x, t, plane = normal(1, 2, 8, 16), torch.tensor([9.0]), normal(1, 2, 8, 16, seed=1)
    signals: dict[str, Any] = {"plane": Plane(plane), "c.hint": Plane(normal(1, 1, 16, 32, seed=3))}
    with attached(patched.ports, control.taps("c")), torch.no_grad():
        context = patched.prepare(signals)
        state = context.adapters["c"] = control.prepare(context, "c")
        assert state is not None
        got = patched(x, t, context)
        for left in (0, 8):
            area = (..., slice(left, left + 8))
            alone = net.prepare({"plane": Plane(plane[area])})
            alone.adapters["c"] = state.crop(0, left, 8, 8)
            torch.testing.assert_close(got[area], net(x[area], t, alone), rtol=1e-5, atol=1e-5)
        context.adapters.clear()
        assert not torch.allclose(patched(x, t, context), got)


def test_an_adapter_that_cannot_be_cut_is_named() -> None:
    net = unet()
    patched = PatchedDenoiser.wrap(net, kernel=8, stride=4)
    context = patched.prepare({"plane": Plane(normal(1, 2, 8, 16))})
    context.adapters["style"] = object()
    with pytest.raises(CompositionError, match="style"):
        patched(normal(1, 2, 8, 16), torch.tensor([9.0]), context)
    with pytest.raises(CompositionError, match="context"):
        patched(normal(1, 2, 8, 16), torch.tensor([9.0]), net.prepare({"plane": Plane(normal(1, 2, 8, 16))}))


def test_patches_cover_the_map_and_their_weights_are_known() -> None:
    config = PatchedConfig.of({"inner": {"type": "unet"}, "kernel": 8, "stride": 5})
    patches = patches_of(config, (8, 20), torch.device("cpu"))
    assert patches.corners == ((0, 0), (0, 5), (0, 10), (0, 12)) and bool((patches.total > 0).all())
    assert patches_of(config, (4, 4), torch.device("cpu")).corners == ((0, 0),)


def test_config_round_trip_and_gaps() -> None:
    patched = PatchedDenoiser.wrap(unet(), kernel=8, stride=4)
    again = PatchedDenoiser(PatchedConfig.of(patched.config.model_dump(mode="json")))
    assert set(again.state_dict()) == set(patched.state_dict()) and again.config == patched.config
    with pytest.raises(SpecError, match="gaps"):
        PatchedConfig.of({"inner": {"type": "unet"}, "kernel": 8, "stride": 9})
