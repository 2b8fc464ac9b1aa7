"""IP-Adapters trained here on folders of diffusers: its `load_ip_adapter` takes the file, and draws what is drawn here.

Tolerance: 1e-4 of the largest latent, in float32, as for other pipelines (see test_diffusers_pipelines).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import ip_files as made
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_checkpoints.ip_adapter.writing import write_ip_adapter
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop.engine import Engine
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

import ldmkit
from ldmkit.run.noise import Noise

NOISE = Noise([3], (4, 16, 16))(0, "start")
BASES: dict[str, Any] = {"sd": tiny.stable_diffusion, "xl": tiny.stable_diffusion_xl}


def recipe(folder: Path, encoder: Path, out: Path, **section: Any) -> dict[str, Any]:
    world = {"type": "miniworld", "config": {"split": "train", "count": 8, "size": 32}}
    return {
        "stage": "ip-adapter", "out": str(out / "run"), "steps": 4, "model": {"start": str(folder)},
        "ip_adapter": {"encoder": str(encoder), **section},
        "data": {"train": world, "size": [32, 32], "batch": 2, "extract": {"ip-image": {"type": "tile"}}},
        "optimiser": {"lr": 0.02}, "ema": None, "precision": "float32", "validation": None, "previews": None,
        "tracking": {"to": []}, "probe": None,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [None, "plain", "plus", "full"])
@pytest.mark.parametrize("name", BASES)
def test_diffusers_draws_the_same(name: str, kind: str | None, tmp_path: Path) -> None:
    """A new one, and those that published files of each kind are the start of; with guidance, whose other side is what
    training puts in the place of a dropped picture."""
    folder, encoder = tiny.saved(BASES[name](), tmp_path / "base"), made.encoder(tmp_path / "encoder")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    section = {}
    if kind is not None:
        section["start"] = str(made.saved(made.adapter(unet, kind), tmp_path / "start.bin"))
    engine = Engine(parse_recipe(recipe(folder, encoder, tmp_path, **section)), Path())
    if kind is None:
        check_beginning(engine.stage, unet)
    model = engine.run().model
    assert model is not None
    call: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [3], "size": (32, 32)}
    ours, given = ldmkit.load(folder).with_adapter_file(model, encoder=encoder), made.picture(1)
    mine = ours({"text": "the red house", "ip-image": given}, negative={"text": "a blur"}, **call).latents
    plain = ours({"text": "the red house"}, negative={"text": "a blur"}, **call).latents
    theirs: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_ip_adapter(str(model), subfolder="", weight_name="ip-adapter.safetensors", image_encoder_folder=None)
    theirs.register_modules(
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(encoder).eval(),
        feature_extractor=CLIPImageProcessorPil(size=made.EDGE, crop_size=made.EDGE),
    )
    want = theirs(
        prompt="the red house", negative_prompt="a blur", ip_adapter_image=given, latents=NOISE, num_inference_steps=3,
        guidance_scale=4.0, height=32, width=32, output_type="latent",
    ).images  # fmt: skip
    assert float((mine - plain).abs().max() / want.abs().max()) > 0.01, "a picture that would be noticed"
    assert float((mine - want).abs().max() / want.abs().max()) < 1e-4


def test_a_step_has_the_gradients_of_diffusers(tmp_path: Path) -> None:
    """Of the same noised latents: loss, and the gradients of every weight, to 1e-4 of the largest (float32)."""
    folder, encoder = tiny.saved(tiny.stable_diffusion(), tmp_path / "base"), made.encoder(tmp_path / "encoder")
    none = {"image": 0, "text": 0, "both": 0}
    stage: Any = parse_recipe(recipe(folder, encoder, tmp_path, drop=none)).make_stage(Path())
    images = [made.picture(i, 32, 32) for i in range(2)]
    rows = [{"text": text, "ip-image": image} for text, image in zip(("a house", "the sea"), images, strict=True)]
    pixels = torch.stack([ldmkit.read_picture(image) for image in images])
    batch = ldmkit.Batch(("0", "1"), pixels, None, None, rows, (32, 32), ldmkit.Draws(5, 3, (0, 1)))
    seen: list[Any] = []
    stage.pipeline.denoiser.register_forward_pre_hook(lambda _, given: seen.append(given))
    loss = stage.turn(batch, 0).total
    loss.backward()
    ((noised, time, context),) = seen

    theirs: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    write_ip_adapter(tmp_path / "ip-adapter.safetensors", stage.adapter, stage.pipeline)
    theirs.load_ip_adapter(str(tmp_path), subfolder="", weight_name="ip-adapter.safetensors", image_encoder_folder=None)
    clip = CLIPVisionModelWithProjection.from_pretrained(encoder).eval()
    prepared = CLIPImageProcessorPil(size=made.EDGE, crop_size=made.EDGE)(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = clip(prepared).image_embeds[:, None]
    theirs.unet.requires_grad_(True)
    predicted = theirs.unet(
        noised, time, encoder_hidden_states=context.signals["context"].value,
        added_cond_kwargs={"image_embeds": [embeds]},
    ).sample  # fmt: skip
    want = (predicted - batch.draws.normal("noise", (4, 16, 16))).square().mean()
    want.backward()
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    projection = theirs.unet.encoder_hid_proj.image_projection_layers[0]
    pairs = [(stage.adapter.projection.proj, projection.image_embeds), (stage.adapter.projection.norm, projection.norm)]
    processors = [own for name, own in theirs.unet.attn_processors.items() if name.endswith("attn2.processor")]
    for i, processor in enumerate(processors):
        pairs += [(stage.adapter.to_k[i], processor.to_k_ip[0]), (stage.adapter.to_v[i], processor.to_v_ip[0])]
    for own, other in pairs:
        for name, parameter in own.named_parameters():
            grad, found = other.get_parameter(name).grad, parameter.grad
            assert float(grad.abs().max()) > 0
            assert float((found - grad).abs().max() / grad.abs().max()) < 1e-4


def check_beginning(stage: Any, unet: Any) -> None:
    """Keys and values of the pictures are those of texts, attention by attention in diffusers' order."""
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for own, key in ((stage.adapter.to_k, "to_k"), (stage.adapter.to_v, "to_v")):
        assert len(own) == len(names)
        for layer, place in zip(own, names, strict=True):
            assert torch.equal(layer.weight, unet.get_submodule(place.replace("processor", key)).weight)
