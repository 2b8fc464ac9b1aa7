"""GLIGEN's network against diffusers' gated U-Net in one forward: float64, 1e-10 of the largest output.

Both sides compute in float64, so what differs is rounding: 1e-13 is seen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_adapters.gligen import GLIGEN
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.diffusers.gligen import gligen_config, gligen_keys, without_gates
from ldmkit_checkpoints.diffusers.unet_config import diffusers_options, unet_from_diffusers
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_conditioners.layout_phrases import box_code
from ldmkit_denoisers.config import SMALL
from ldmkit_denoisers.unet import UNet
from torch import Tensor

from ldmkit import Context, Tokens, attached
from ldmkit.errors import CompositionError, InputError

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import gligen_models as gm
import tiny_diffusers as tiny

WIDTH = tiny.TEXT_WIDTH
NETWORKS: dict[str, dict[str, Any]] = {
    "sd1": {},
    "deep": {"transformer_layers_per_block": (1, 3), "attention_head_dim": (2, 8), "use_linear_projection": True},
    "wide": {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2},
}


class Pair:
    """A gated U-Net of the oracle library, and ours with its weights."""

    def __init__(self, **changes: Any) -> None:
        torch.manual_seed(0)
        self.theirs = gm.opened(tiny.unet(**gm.GATED, **changes)).double().eval()
        config = dict(self.theirs.config)
        config = without_gates({**config, "_class_name": "UNet2DConditionModel"}, "StableDiffusionGLIGENPipeline", "")
        unet = unet_from_diffusers(config)
        keys = unet_diffusers(unet, **diffusers_options(config))
        state = self.theirs.state_dict()
        self.unet = filled(UNet(unet), keys, state)
        own = gligen_config(unet, end=1.0)
        keys_of_gates = gligen_keys(own, keys)
        self.gligen = filled(GLIGEN(own), keys_of_gates, state)
        used = {key for keymap in (keys, keys_of_gates) for entry in keymap.values() for key in entry.keys}
        assert used == set(state)

    def want(self, x: Tensor, t: Tensor, text: Tensor, phrases: Tensor, boxes: Tensor, real: Tensor) -> Tensor:
        given = {"boxes": boxes, "positive_embeddings": phrases, "masks": real}
        with torch.no_grad():
            made: Tensor = self.theirs(x, t, text, cross_attention_kwargs={"gligen": given}).sample
        return made

    def got(self, x: Tensor, t: Tensor, text: Tensor, objects: Tensor | None, gligen: Any = None) -> Tensor:
        adapter = gligen or self.gligen
        signals: dict[str, Any] = {"context": Tokens(text)}
        if objects is not None:
            signals["g.objects"] = Tokens(objects)
        context: Context = self.unet.prepare(signals)
        with torch.no_grad(), attached(self.unet.ports, adapter.taps("g")):
            context.adapters["g"] = adapter.prepare(context, "g")
            return self.unet(x, t, context, 1.0)


def filled(module: Any, keymap: Any, state: dict[str, Tensor]) -> Any:
    module = module.double()
    module.load_state_dict({n: e.read(*(state[k] for k in e.keys)) for n, e in keymap.items()})
    return module.eval().requires_grad_(False)


def inputs(counts: tuple[int, ...], size: tuple[int, int]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(counts))
    rows = len(counts)
    x = torch.randn(rows, 4, *size, generator=generator, dtype=torch.float64)
    text = torch.randn(rows, 7, WIDTH, generator=generator, dtype=torch.float64)
    phrases = torch.randn(rows, 30, WIDTH, generator=generator, dtype=torch.float64)
    boxes = torch.rand(rows, 30, 4, generator=generator, dtype=torch.float64)
    real = (torch.arange(30) < torch.tensor(counts)[:, None]).double()
    return x, torch.linspace(1, 900, rows), text, phrases * real[..., None], boxes * real[..., None], real


def as_objects(phrases: Tensor, boxes: Tensor, real: Tensor) -> Tensor:
    code = torch.stack([box_code(row, 8) for row in boxes])
    return torch.cat([phrases, code, torch.ones_like(code[..., :1])], dim=2) * real[..., None]


def near(got: Tensor, want: Tensor) -> None:
    assert float((got - want).abs().max()) <= 1e-10 * float(want.abs().max())


@pytest.fixture(scope="module", params=list(NETWORKS))
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(**NETWORKS[request.param])


@pytest.mark.parametrize("counts", [(0,), (1,), (30,), (0, 3, 30)])
@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
def test_one_forward(pair: Pair, counts: tuple[int, ...], size: tuple[int, int]) -> None:
    x, t, text, phrases, boxes, real = inputs(counts, size)
    want = pair.want(x, t, text, phrases, boxes, real)
    objects = as_objects(phrases, boxes, real)
    near(pair.got(x, t, text, objects), want)
    most = max(1, *counts)
    near(pair.got(x, t, text, objects[:, :most]), want)  # the rest is filled up
    if counts == (0,):
        near(pair.got(x, t, text, None), want)


def test_closed_gates_are_the_identity_bit_for_bit(pair: Pair) -> None:
    x, t, text, phrases, boxes, real = inputs((2, 30), (8, 8))
    objects = as_objects(phrases, boxes, real)
    with torch.no_grad():
        plain = pair.unet(x, t, pair.unet.prepare({"context": Tokens(text)}))
    new = GLIGEN.from_denoiser(pair.unet, dim=WIDTH, phrase_dim=WIDTH, end=1.0)
    assert [one.port for one in new.config.layers] == [one.port for one in pair.gligen.config.layers]
    assert torch.equal(pair.got(x, t, text, objects, new), plain)
    assert torch.equal(pair.got(x, t, text, objects, pair.gligen.tuned(scale=0)), plain)
    assert not torch.equal(pair.got(x, t, text, objects), plain)


def test_the_box_code_is_the_published_one() -> None:
    from diffusers.models.embeddings import get_fourier_embeds_from_boundingbox

    corners = torch.rand(5, 4, dtype=torch.float64)
    for frequencies in (3, 8):
        want = get_fourier_embeds_from_boundingbox(frequencies, corners[None])[0]
        assert float((box_code(corners, frequencies) - want).abs().max()) < 1e-14


def test_the_original_names_its_gates_in_its_own_layout() -> None:
    pair = Pair()
    keys = gligen_keys(pair.gligen.config, unet_compvis(pair.unet.config))
    names = {key for entry in keys.values() for key in entry.keys}
    assert "input_blocks.3.1.transformer_blocks.0.fuser.alpha_attn" in names
    assert {"position_net.linears.4.bias", "middle_block.1.transformer_blocks.0.fuser.attn.to_out.0.weight"} < names


def test_more_objects_than_slots_and_a_network_without_blocks_are_refused() -> None:
    pair = Pair()
    x, t, text, *_ = inputs((1,), (8, 8))
    with pytest.raises(InputError, match="at most 30"):
        pair.got(x, t, text, torch.zeros(1, 31, WIDTH + 65, dtype=torch.float64))
    with pytest.raises(CompositionError, match="no transformer blocks"):
        GLIGEN.from_denoiser(UNet({**SMALL, "attention": ["none", "none"], "mid": "absent"}))
