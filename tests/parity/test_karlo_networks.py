"""Karlo's decoder with its projection, and its pair of enlarging networks, against diffusers' modules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_checkpoints.diffusers.parts import unet_component
from ldmkit_checkpoints.diffusers.unclip.text_proj import text_proj_keys, with_text_proj
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_conditioners.image import EnlargingConfig
from ldmkit_denoisers.two_networks import TwoNetworks
from ldmkit_denoisers.unet import UNet
from torch import Tensor

import ldmkit
from ldmkit import Tokens, Vector

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import karlo_models as karlo

FLOAT64 = 1e-10
"""Of the largest output, in float64 but for the sinusoid of the time; 1e-14 is seen."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def native(keymap: KeyMap, state: dict[str, Tensor]) -> dict[str, Tensor]:
    assert {key for one in keymap.values() for key in one.keys} == set(state)
    return {name: one.read(*(state[key] for key in one.keys)) for name, one in keymap.items()}


def adopted(net: Any, proj: Any) -> UNet:
    component, plain = unet_component({**net.config, "_class_name": type(net).__name__}, net.state_dict(), 3, "length")
    config = with_text_proj(plain, dict(proj.config), "text_proj")
    state = {key: value for key, value in proj.state_dict().items() if not key.startswith("learned_")}
    ours = UNet(config).double().eval()
    ours.load_state_dict({**native(component.keymap, net.state_dict()), **native(text_proj_keys(config), state)})
    return ours


@pytest.mark.parametrize("tokens", [4, 3])
def test_the_decoder_reads_both_embeddings_and_the_text(tokens: int) -> None:
    net, proj = karlo.decoder().double(), karlo.text_proj(clip_extra_context_tokens=tokens).double()
    ours = adopted(net, proj)
    x, text = normal(2, 3, 16, 16, seed=1), normal(2, 9, 32, seed=2)
    pooled, image = normal(2, 32, seed=3), normal(2, 32, seed=4)
    mask = torch.arange(9) < torch.tensor([9, 3])[:, None]
    time = torch.tensor([999, 20])
    with torch.no_grad():
        states, added = proj(
            image_embeddings=image, prompt_embeds=pooled, text_encoder_hidden_states=text,
            do_classifier_free_guidance=False,
        )  # fmt: skip
        wide = torch.nn.functional.pad(mask, (tokens, 0), value=True)
        want = net(x, time, encoder_hidden_states=states, class_labels=added, attention_mask=wide).sample
        signals = {"context": Tokens(text, mask), "vector": Vector(pooled), "image": Vector(image)}
        got = ours(x, time.float(), ours.prepare(signals))
    assert (got - want).abs().max() < FLOAT64 * want.abs().max()


@pytest.mark.parametrize(
    ("field", "value"),
    [("time_embed_dim", 64), ("cross_attention_dim", 32), ("clip_extra_context_tokens", 0), ("clip_embedding_dim", 3)],
)
def test_a_projection_of_another_decoder_is_refused_by_name(field: str, value: int) -> None:
    net = karlo.decoder()
    _, plain = unet_component({**net.config, "_class_name": type(net).__name__}, net.state_dict(), 3, "length")
    with pytest.raises(ldmkit.SourceError, match=field):
        with_text_proj(plain, {**karlo.text_proj().config, field: value}, "text_proj")


def pair() -> tuple[Any, Any, TwoNetworks]:
    first, last = karlo.enlarging(8).double(), karlo.enlarging(9).double()
    named = [({**one.config, "_class_name": "UNet2DModel"}, one.state_dict()) for one in (first, last)]
    parts = [unet_component(config, state, 3, "length")[0] for config, state in named]
    ours = TwoNetworks({"first": parts[0].spec, "last": parts[1].spec}).double().eval()  # type: ignore[arg-type]
    ours.first.load_state_dict(native(parts[0].keymap, first.state_dict()))
    ours.last.load_state_dict(native(parts[1].keymap, last.state_dict()))
    return first, last, ours


def test_the_last_timestep_has_its_own_network() -> None:
    first, last, ours = pair()
    x, low = normal(3, 3, 32, 32, seed=1), normal(3, 3, 32, 32, seed=2)
    both = torch.cat([x, low], dim=1)
    context = ours.prepare({"plane": ldmkit.Plane(low)})
    with torch.no_grad():
        for times in ([999, 500, 1], [0, 0, 0], [999, 0, 3]):
            time = torch.tensor(times)
            early, late = first(both, time).sample, last(both, time).sample
            want = torch.where((time == 0).view(-1, 1, 1, 1), late, early)
            assert (early - late).abs().max() > 0.01
            got = ours(x, time.float(), context)
            assert (got - want).abs().max() < FLOAT64 * want.abs().max()
        calls: list[Any] = []
        for one in (ours.first, ours.last):
            one.register_forward_hook(lambda module, *_: calls.append(module))
        for host, net in ((0.0, last), (1.0, first)):
            time, context.time = torch.full((3,), int(host)), host
            calls.clear()
            got, want = ours(x, time.float(), context), net(both, time).sample
            assert (got - want).abs().max() < FLOAT64 * want.abs().max()
            assert calls == [ours.first if host else ours.last]


def test_networks_that_differ_are_refused() -> None:
    _, _, ours = pair()
    other = ours.config.first.model_copy(update={"config": {**ours.config.first.config, "in_channels": 3}})
    with pytest.raises(ldmkit.CompositionError, match="differ in slots"):
        TwoNetworks({"first": ours.config.first, "last": other})  # type: ignore[arg-type]


def test_pictures_are_enlarged_as_by_pillow() -> None:
    images = normal(2, 3, 5, 7, seed=3)
    want = torch.nn.functional.interpolate(images, size=[20, 28], mode="bicubic", align_corners=False, antialias=True)
    config = EnlargingConfig(enlarge=4, method="bicubic", antialias=True)
    assert torch.equal(config.enlarged(images), want)
    plain = EnlargingConfig(enlarge=4, method="bicubic").enlarged(images)
    assert (plain - want).abs().max() > 0.01


def test_parameters_at_full_size() -> None:
    """In diffusers' configs: 885.4 and 7.9 million of the decoder and its projection, 691.6 of each enlarging one."""
    blocks = ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3)
    wide: dict[str, Any] = {"layers_per_block": 3, "block_out_channels": (320, 640, 960, 1280)}
    with torch.device("meta"):
        config: dict[str, Any] = {
            "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 3, "out_channels": 6, **wide,
            "down_block_types": blocks, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
            "cross_attention_dim": 1536, "attention_head_dim": 64, "resnet_time_scale_shift": "scale_shift",
            "class_embed_type": "identity",
        }  # fmt: skip
        _, plain = unet_component(config, (), 3, "length")
        full = with_text_proj(plain, {"time_embed_dim": 1280, "cross_attention_dim": 1536}, "text_proj")
        enlarging = {
            "_class_name": "UNet2DModel", "sample_size": 256, "in_channels": 6, "out_channels": 3, **wide,
            "down_block_types": (blocks[0],) * 4, "up_block_types": ("ResnetUpsampleBlock2D",) * 4,
            "add_attention": False,
        }  # fmt: skip
        _, large = unet_component(enlarging, (), 3, "length")
        counts = [sum(p.numel() for p in UNet(one).parameters()) / 1e6 for one in (plain, full, large)]
    null = 768 / 1e6
    assert [round(counts[0], 1), round(counts[1] - counts[0] + null, 1), round(counts[2], 1)] == [885.4, 7.9, 691.6]
