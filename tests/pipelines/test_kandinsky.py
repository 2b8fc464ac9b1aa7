"""Kandinsky 2.2 against diffusers: prior, decoder, picture to picture, the combined folder, sizes, and refusals."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import unclip_models as models
from ldmkit_conditioners.masked_image import grown
from PIL import Image
from torch import Tensor
from unclip_tables import in_double

import ldmkit
from ldmkit.run.noise import Noise

DIM = models.DIM
TOLERANCE = 1e-4
"""float32 on both sides; 2e-6 is seen."""


def far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


def embedding(seed: int) -> Tensor:
    return torch.randn(1, DIM, generator=torch.Generator().manual_seed(seed))


def picture(size: tuple[int, int] = (40, 33)) -> Any:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


class Steps:
    """Our noise in the order in which diffusers asks for it: the start, then one draw a step."""

    def __init__(self, seed: int, shape: tuple[int, ...], start: bool = True) -> None:
        self.noise, self.index, self.start = Noise([seed], shape), 0, start

    def __call__(self, shape: Any, **kwargs: Any) -> Tensor:
        if self.start:
            self.start = False
            return self.noise(0, "start")
        self.index += 1
        return self.noise(self.index - 1)


def drawn_by_us(monkeypatch: pytest.MonkeyPatch, steps: Steps, *modules: Any) -> None:
    from diffusers.schedulers import scheduling_ddpm, scheduling_unclip

    for module in (*modules, scheduling_ddpm, scheduling_unclip):
        monkeypatch.setattr(module, "randn_tensor", steps)


SCHEDULERS: dict[str, Any] = {
    "ddpm": models.decoder_scheduler(),
    "ddpm, its variance discarded": models.decoder_scheduler(variance_type="fixed_small"),
    "ddim": models.decoder_scheduler("DDIMScheduler"),
    "dpm++": diffusers.DPMSolverMultistepScheduler(**{k: v for k, v in models.LINEAR.items() if k != "clip_sample"}),
}


@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_decoder(name: str, guidance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DDPM takes its variance from the second half of the output, of the conditional branch; DDIM discards it."""
    from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2 as module

    theirs = models.kandinsky(tmp_path, SCHEDULERS[name])
    drawn_by_us(monkeypatch, Steps(5, (4, 16, 16)), module)
    given = {"image_embeds": embedding(1), "negative_image_embeds": embedding(2)}
    call = {"height": 32, "width": 32, "num_inference_steps": 4, "guidance_scale": guidance}
    want = theirs(**given, **call, output_type="latent").images
    ours = ldmkit.load(tmp_path)
    inputs: Any = {"image": embedding(1)[0]}, {"image": embedding(2)[0]}
    out = ours(inputs[0], negative=inputs[1], size=32, steps=4, guidance=guidance, seeds=[5])
    assert far(out.latents, want) < TOLERANCE
    with torch.no_grad():
        pictures = theirs.movq.decode(out.latents, force_not_quantize=True).sample
    off = out.images * 2 - 1 - pictures.clamp(-1, 1)
    assert float(off.abs().max() / pictures.abs().max()) < TOLERANCE, "of the largest value before clamping"


def test_defaults_and_sizes_are_said(tmp_path: Path) -> None:
    models.kandinsky(tmp_path)
    ours = ldmkit.load(tmp_path)
    spec = ours.spec.defaults
    assert (spec.steps, spec.guidance.config["scale"], spec.size) == (100, 4.0, (512, 512))
    assert ours.codec.multiple == ours.codec.factor**2
    inputs: Any = {"image": embedding(1)[0]}, {"image": embedding(2)[0]}
    with pytest.warns(UserWarning, match="30x32 is not a multiple of the codec's 4 pixels: 32x32 is drawn"):
        out = ours(inputs[0], negative=inputs[1], size=(30, 32), steps=2)
    assert out.images.shape[-2:] == (30, 32) and out.latents.shape[-2:] == (16, 16)


def test_without_the_encoder_the_negative_must_be_given(tmp_path: Path) -> None:
    models.kandinsky(tmp_path)
    ours = ldmkit.load(tmp_path)
    with pytest.raises(ldmkit.InputError, match="zero after normalisation"):
        ours({"image": embedding(1)[0]}, size=32, steps=2)
    with pytest.raises(ldmkit.InputError, match="no encoder"):
        ours({"image": picture()}, size=32, steps=2)
    with pytest.raises(ldmkit.InputError, match=f"{DIM}"):
        ours({"image": [1.0, 2.0]}, size=32, steps=2)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
def test_picture_to_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2_img2img as module

    theirs = models.kandinsky(tmp_path, models.decoder_scheduler(name), "KandinskyV22Img2ImgPipeline")
    drawn_by_us(monkeypatch, Steps(5, (4, 16, 16)), module)
    given = {"image_embeds": embedding(1), "negative_image_embeds": embedding(2)}
    image = picture((32, 32))
    call = {"height": 32, "width": 32, "num_inference_steps": 10, "guidance_scale": 3.0, "strength": 0.5}
    want = theirs(**given, image=Image.fromarray(image), **call, output_type="latent").images
    ours = ldmkit.load(tmp_path)
    inputs: Any = {"image": embedding(1)[0]}, {"image": embedding(2)[0]}
    start = {"image": image, "strength": 0.5}
    out = ours(inputs[0], negative=inputs[1], start=start, steps=10, guidance=3.0, seeds=[5])
    assert far(out.latents, want) < TOLERANCE


@pytest.mark.parametrize(("hole", "steps"), [(slice(6, 18), 1), (slice(0, 32), 4)])
def test_inpainting(hole: slice, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition is theirs. What is kept runs along there, so that only the first step, or a hole of the whole
    picture, gives the same; see the note."""
    from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2_inpainting as module

    theirs = models.kandinsky(
        tmp_path, models.decoder_scheduler("DDIMScheduler"), "KandinskyV22InpaintPipeline", in_channels=9
    )
    drawn_by_us(monkeypatch, Steps(5, (4, 16, 16)), module)
    image, mask = picture((32, 32)), np.zeros((32, 32), np.uint8)
    mask[hole, hole.start + 2 if steps == 1 else 0 :] = 255
    given: Any = {"image_embeds": embedding(1), "negative_image_embeds": embedding(2), "image": Image.fromarray(image)}
    call = {"height": 32, "width": 32, "num_inference_steps": steps, "guidance_scale": 3.0, "output_type": "latent"}
    want = theirs(**given, mask_image=Image.fromarray(mask), **call).images
    ours = ldmkit.load(tmp_path)
    with pytest.warns(UserWarning) if steps == 1 else nullcontext():
        row: Any = {"image": embedding(1)[0], "masked-image": {"image": image, "mask": mask}}
        negative: Any = {"image": embedding(2)[0]}
        out = ours(row, negative=negative, steps=steps, guidance=3.0, seeds=[5])
    drawn = torch.from_numpy(mask[::2, ::2] > 0)
    assert far(out.latents[..., drawn], want[..., drawn]) < TOLERANCE
    small = torch.from_numpy(mask[::2, ::2] > 0)[None, None].float()
    assert torch.equal(1 - grown(small), module.prepare_mask((1 - small).clone()))
    assert any("after each step" in note for note in ldmkit.open_source(tmp_path).report.notes)


@pytest.mark.parametrize("negative", [None, "the sea"])
def test_the_prior(negative: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2_prior as module

    theirs = models.kandinsky_prior(tmp_path)
    in_double(theirs.scheduler)
    ours = ldmkit.load(tmp_path)
    assert (ours.spec.defaults.steps, ours.spec.defaults.guidance.config["scale"]) == (25, 4.0)
    draws = Steps(9, (DIM,))
    if negative is not None:  # theirs draws a second row, the negative's own embedding, from the same numbers here
        monkeypatch.setattr(Steps, "__call__", lambda self, shape, **_: doubled(self))
    drawn_by_us(monkeypatch, draws, module)
    want = theirs("a horse", negative_prompt=negative, num_inference_steps=5, guidance_scale=4.0).image_embeds
    given = None if negative is None else {"text": negative}
    out = ours({"text": "a horse"}, negative=given, steps=5, seeds=[9])
    assert far(out.images, want) < TOLERANCE


def doubled(steps: Steps) -> Tensor:
    if steps.start:
        steps.start = False
        return steps.noise(0, "start").repeat(2, 1)
    steps.index += 1
    return steps.noise(steps.index - 1).repeat(2, 1)


def test_statistics_of_zero_are_an_error(tmp_path: Path) -> None:
    theirs = models.kandinsky_prior(tmp_path)
    theirs.prior.clip_std.data.zero_()
    theirs.prior.save_pretrained(tmp_path / "prior")
    with pytest.raises(ldmkit.WeightsError, match="all zero"):
        ldmkit.load(tmp_path)


@pytest.mark.parametrize(
    ("cls", "word"),
    [
        ("KandinskyPipeline", "2.1"),
        ("KandinskyCombinedPipeline", "2.1"),
        ("KandinskyV22ControlnetPipeline", "hint"),
        ("KandinskyV22PriorEmb2EmbPipeline", "Emb2Emb"),
    ],
)
def test_relatives_are_refused_by_name(cls: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "{cls}"}}')
    with pytest.raises(ldmkit.SourceError, match=word) as caught:
        ldmkit.load(tmp_path)
    assert cls in str(caught.value)


def test_full_size_on_meta() -> None:
    """The decoder of Kandinsky 2.2 as its converter configures it."""
    from ldmkit_checkpoints.diffusers.unet_config import unet_from_diffusers
    from ldmkit_denoisers.unet import UNet

    options: dict[str, Any] = {
        "sample_size": 64,
        "block_out_channels": (384, 768, 1152, 1536),
        "layers_per_block": 3,
        "down_block_types": ("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
        "up_block_types": (*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
        "encoder_hid_dim": 1280,
        "cross_attention_dim": 768,
        "attention_head_dim": 64,
    }
    with torch.device("meta"):
        theirs = models.decoder_unet(**options)
        ours = UNet(unet_from_diffusers(dict(theirs.config), 4))
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) and round(count / 1e6) == 1253
