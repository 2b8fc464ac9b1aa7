"""Texts to pictures through a prior: Kandinsky's combined folder and Stable unCLIP's, against diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import unclip_models as models
from PIL import Image
from test_kandinsky import DIM, TOLERANCE, Steps, far, picture
from test_stable_unclip import embedding_noise
from unclip_tables import in_double

import ldmkit
from ldmkit.cli import main

PROMPT = "a horse"


def patched(monkeypatch: pytest.MonkeyPatch, draws: Any, *modules: Any) -> None:
    for module in modules:
        monkeypatch.setattr(module, "randn_tensor", draws)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
def test_kandinsky(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2 as decoder
    from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2_prior as prior
    from diffusers.schedulers import scheduling_ddpm, scheduling_unclip

    theirs = models.combined(tmp_path, models.decoder_scheduler(name))
    in_double(theirs.prior_scheduler)
    seeds = [ldmkit.stage_seed(3, stage) for stage in ("prior", "decoder")]
    patched(monkeypatch, Steps(seeds[0], (DIM,)), prior, scheduling_unclip)
    patched(monkeypatch, Steps(seeds[1], (4, 16, 16)), decoder, scheduling_ddpm)
    sizes = {"height": 32, "width": 32, "guidance_scale": 3.0, "prior_guidance_scale": 2.0}
    want = theirs(PROMPT, num_inference_steps=4, prior_num_inference_steps=3, **sizes, output_type="latent").images
    ours = ldmkit.Cascade.load(tmp_path)
    stages = {"prior": {"steps": 3, "guidance": 2.0}, "decoder": {"steps": 4, "guidance": 3.0, "size": 32}}
    out = ours({"text": PROMPT}, seeds=[3], stages=stages)
    assert far(out.latents, want) < TOLERANCE
    assert out.stages["prior"].images.shape == (1, DIM)


def test_stable_unclip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.stable_diffusion import pipeline_stable_unclip as module
    from diffusers.schedulers import scheduling_ddpm

    theirs = models.stable_unclip_with_prior(tmp_path)
    seeds = [ldmkit.stage_seed(3, stage) for stage in ("prior", "decoder")]
    prior, rest = Steps(seeds[0], (DIM,)), [Steps(seeds[1], (4, 16, 16)), lambda *_, **__: embedding_noise(seeds[1])]
    started: list[Any] = [prior]

    def draw(*args: Any, **kwargs: Any) -> Any:
        return (started or rest).pop()(*args, **kwargs)

    monkeypatch.setattr(module, "randn_tensor", draw)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", prior)
    call = {"num_inference_steps": 4, "prior_num_inference_steps": 3, "noise_level": 30, "guidance_scale": 3.0}
    want = theirs(PROMPT, **call, output_type="latent").images
    ours = ldmkit.Cascade.load(tmp_path)
    stages = {"prior": {"steps": 3}, "decoder": {"steps": 4, "guidance": 3.0}}
    out = ours({"text": PROMPT, "image": {"level": 30}}, seeds=[3], stages=stages)
    assert far(out.latents, want) < TOLERANCE
    defaults = {name: stage.spec.defaults for name, stage in ours.stages.items()}
    assert (defaults["prior"].steps, defaults["decoder"].steps) == (25, 20)
    assert (defaults["prior"].guidance.config["scale"], defaults["decoder"].guidance.config["scale"]) == (4.0, 10.0)


def test_unclips_scheduler_in_stable_unclip_is_said(tmp_path: Path) -> None:
    models.stable_unclip_with_prior(tmp_path, models.prior_scheduler(5.0))
    notes = ldmkit.open_source(tmp_path).stage("prior").report.notes
    assert any("UnCLIPScheduler" in note for note in notes)


def test_the_negative_of_the_decoder_is_a_blank_picture(tmp_path: Path) -> None:
    theirs = models.combined(tmp_path)
    decoder = ldmkit.Cascade.load(tmp_path).stages["decoder"]
    with torch.no_grad():
        blank = theirs.prior_image_encoder(torch.zeros(1, 3, 28, 28)).image_embeds[0]
        level = theirs.prior_image_processor(Image.fromarray(picture()), return_tensors="pt").pixel_values
        own = theirs.prior_image_encoder(level).image_embeds[0]
    call: Any = {"size": 32, "steps": 2, "seeds": [1]}
    out = decoder({"image": picture()}, **call).latents
    assert far(out, decoder({"image": own}, negative={"image": blank}, **call).latents) < TOLERANCE
    black = np.zeros((28, 28, 3), np.uint8)
    assert far(out, decoder({"image": picture()}, negative={"image": black}, **call).latents) > 0.01


def test_the_two_published_folders_side_by_side(tmp_path: Path) -> None:
    """The decoder's negative needs the encoder, which stands in the prior's folder."""
    theirs = models.kandinsky_prior(tmp_path / "prior")
    models.kandinsky(tmp_path / "decoder", models.decoder_scheduler("DDIMScheduler"))
    ours, call = ldmkit.Cascade.load(tmp_path), {"size": 32, "steps": 2, "guidance": 3.0}
    out = ours({"text": PROMPT}, seeds=[5], stages={"prior": {"steps": 2}, "decoder": call})
    with torch.no_grad():
        blank = theirs.image_encoder(torch.zeros(1, 3, 28, 28)).image_embeds[0]
    given: Any = {"image": out.stages["prior"].images[0]}, {"image": blank}
    seeds = [ldmkit.stage_seed(5, "decoder")]
    want = ldmkit.load(tmp_path / "decoder")(given[0], negative=given[1], seeds=seeds, **call)
    assert far(out.latents, want.latents) < TOLERANCE
    (tmp_path / "prior" / "image_encoder" / "config.json").unlink()
    with pytest.raises(ldmkit.SourceError, match="image_encoder") as caught:
        ldmkit.Cascade.load(tmp_path)
    assert "decoder" in str(caught.value)


def test_the_command_line(tmp_path: Path) -> None:
    """From a text, and variations of a picture, which start at the decoder."""
    models.combined(tmp_path / "model")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    size = ["--stage", "decoder.size=32x32", "--steps", "2", "--seed", "4"]
    assert main(["sample", str(tmp_path / "model"), "--text", PROMPT, *size, "--out", str(tmp_path / "b.png")]) == 0
    given = ["--first", "decoder", "--image", str(tmp_path / "a.png")]
    assert main(["sample", str(tmp_path / "model"), *given, *size, "--out", str(tmp_path / "c.png")]) == 0
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "bc"]
    assert pictures[0].shape == (32, 32, 3) and not np.array_equal(*pictures)
    cascade = ldmkit.Cascade.load(tmp_path / "model")
    out = cascade({"image": picture()}, first="decoder", seeds=[4], steps=2, stages={"decoder": {"size": 32}})
    assert np.array_equal(np.asarray(out.pil()[0]), pictures[1])


def test_saved_as_a_cascade(tmp_path: Path) -> None:
    models.combined(tmp_path / "model")
    ours = ldmkit.Cascade.load(tmp_path / "model")
    call: Any = {"seeds": [2], "steps": 2, "stages": {"decoder": {"size": 32}}}
    want = ours({"text": PROMPT}, **call)
    again = ldmkit.Cascade.load(ours.save(tmp_path / "own"))
    assert torch.equal(again({"text": PROMPT}, **call).images, want.images)


def test_load_says_that_it_is_a_cascade(tmp_path: Path) -> None:
    models.combined(tmp_path)
    with pytest.raises(ldmkit.SourceError, match=r"Cascade\.load"):
        ldmkit.load(tmp_path)
