"""Folders that diffusers wrote, loaded here, and folders written here, loaded there. Everything is tiny and seeded.

Tolerance of pictures: 1e-4 absolute in float32, as both sides round differently at every step; weights are equal
bit for bit both ways.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.latent_diffusion_uncond import pipeline_latent_diffusion_uncond
from ldm_pipelines import paper_text, pixels, plain_unet, start_noise, super_resolution, unconditional
from ldmkit_checkpoints.component_files import component_tensors, member
from ldmkit_checkpoints.diffusers.export import ExportWarning, save_diffusers
from ldmkit_checkpoints.diffusers.folder import DiffusersComponent
from torch import Tensor, nn

import ldmkit
from ldmkit.models.reading import open_source

sys.path.append(str(Path(__file__).parents[1] / "pipelines"))
import tiny_diffusers as tiny


def inpainting() -> Any:
    base = tiny.stable_diffusion(in_channels=9)
    return diffusers.StableDiffusionInpaintPipeline(**base.components, requires_safety_checker=False)


def rows(images: Tensor) -> Any:
    return images.permute(0, 2, 3, 1).numpy()


def test_unconditional_with_a_vq_codec(tmp_path: Path) -> None:
    pipe = unconditional()
    ours = ldmkit.load(tiny.saved(pipe, tmp_path))
    noise = start_noise((3, 16, 16))
    with mock.patch.object(pipeline_latent_diffusion_uncond, "randn_tensor", lambda *a, **k: noise.clone()):
        want = pipe(num_inference_steps=5, output_type="np").images
    assert ours.spec.defaults.sampler.type == "ddim"
    assert np.abs(rows(ours({}, steps=5).images) - want).max() < 1e-4


def test_the_papers_text_transformer(tmp_path: Path) -> None:
    pipe = paper_text(tmp_path)
    ours = ldmkit.load(tiny.saved(pipe, tmp_path / "saved"))
    noise = start_noise((4, 16, 16))
    # its height and width are 8 times the latent's, whatever the codec
    options = {"num_inference_steps": 4, "guidance_scale": 4.0, "height": 128, "width": 128, "output_type": "np"}
    want = pipe("a cat", latents=noise.clone(), **options).images
    got = ours({"text": "a cat"}, steps=4, guidance=4.0, size=32).images
    assert np.abs(rows(got) - want).max() < 1e-4


def test_super_resolution_and_pixels(tmp_path: Path) -> None:
    ours = ldmkit.load(tiny.saved(super_resolution(), tmp_path / "sr"))
    small = np.zeros((16, 16, 3), np.uint8)
    assert ours({"image": small}, steps=2).images.shape == (1, 3, 32, 32)
    pixel = ldmkit.load(tiny.saved(pixels(), tmp_path / "pixels"))
    assert pixel.codec.factor == 1
    assert pixel.spec.defaults.sampler.type == "ddpm"
    assert pixel({}, steps=2).images.shape == (1, 3, 16, 16)


def states(pipe: Any) -> dict[str, dict[str, Tensor]]:
    return {n: part.state_dict() for n, part in pipe.components.items() if isinstance(part, nn.Module)}


@pytest.mark.parametrize(
    "make",
    [tiny.stable_diffusion, inpainting, tiny.stable_diffusion_xl, unconditional, pixels, paper_text],
    ids=["sd", "inpaint", "sdxl", "ldm", "ddpm", "ldm-text"],
)
def test_a_folder_written_here_is_the_same_there(tmp_path: Path, make: Callable[..., Any]) -> None:
    pipe = make(tmp_path) if make is paper_text else make()
    folder = tiny.saved(pipe, tmp_path / "theirs")
    ours = ldmkit.load(folder)
    written = save_diffusers(ours, tmp_path / "ours")
    again = type(pipe).from_pretrained(written)
    for name, want in states(pipe).items():
        got = states(again)[name]
        assert got.keys() == want.keys(), name
        for key, tensor in want.items():
            assert torch.equal(got[key], tensor) or "to_logits" in key, f"{name}.{key}"
    for key in ("prediction_type", "beta_start", "beta_end", "beta_schedule", "timestep_spacing", "steps_offset"):
        assert again.scheduler.config[key] == pipe.scheduler.config[key], key
    for name in ("tokenizer", "tokenizer_2"):
        if getattr(pipe, name, None) is not None:
            assert getattr(again, name)("a the cat").input_ids == getattr(pipe, name)("a the cat").input_ids
    third = ldmkit.load(written)
    assert third.spec.conditioners == ours.spec.conditioners
    if make is paper_text:  # from its vocabulary, which is not bert-base-uncased's
        config = ours.conditioners["text"].config
        assert (config.pad, config.start, config.end) == (0, 2, 3)
    assert third.spec.process == ours.spec.process


def test_outputs_after_the_way_there_and_back(tmp_path: Path) -> None:
    pipe = tiny.stable_diffusion_xl()
    written = save_diffusers(ldmkit.load(tiny.saved(pipe, tmp_path / "theirs")), tmp_path / "ours")
    again = diffusers.StableDiffusionXLPipeline.from_pretrained(written, add_watermarker=False)
    again.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32, "width": 32, "output_type": "latent"}
    draws = [p("the cat", latents=start_noise((4, 16, 16)), **options).images for p in (pipe, again)]
    assert torch.allclose(draws[0], draws[1], atol=1e-6)


@pytest.mark.parametrize("variant", ["bin", "fp16", "shards", "bin-shards", "non_ema"])
def test_the_forms_that_weights_come_in(tmp_path: Path, variant: str) -> None:
    pipe = unconditional()
    plain = tiny.saved(pipe, tmp_path / "plain")
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    unet, old = pipe.unet, other / "unet" / "diffusion_pytorch_model.safetensors"
    if variant != "non_ema":
        old.unlink()
    if variant == "bin":
        unet.save_pretrained(other / "unet", safe_serialization=False)
    elif variant in ("fp16", "non_ema"):
        unet.save_pretrained(other / "unet", variant=variant)
    else:
        unet.save_pretrained(other / "unet", max_shard_size="50KB", safe_serialization=variant == "shards")
        assert len(list((other / "unet").glob("*-of-*"))) > 1
    source = open_source(
        other, ema=False if variant == "non_ema" else None, variant="fp16" if variant == "fp16" else None
    )
    tensors = source.tensors("denoiser")
    want = ldmkit.load(plain).denoiser.state_dict()
    assert tensors.keys() == want.keys()
    assert all(torch.equal(tensors[key].read(True), tensor) for key, tensor in want.items())
    noted = any(variant in note for note in source.report.notes)
    assert noted == (variant in ("fp16", "non_ema"))


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    folder = tiny.saved(tiny.stable_diffusion(), tmp_path)
    source = open_source(folder)
    for part in ("codec", "denoiser", "conditioners.text"):
        source.tensors(part)
    counts = {part: list(source.report.used.values()).count(part) for part in set(source.report.used.values())}
    pipe = tiny.stable_diffusion()
    assert counts == {
        "codec": len(pipe.vae.state_dict()),
        "denoiser": len(pipe.unet.state_dict()),
        "conditioners.text": len([k for k in pipe.text_encoder.state_dict() if "position_ids" not in k]),
    }


def test_single_components(tmp_path: Path) -> None:
    folder = tiny.saved(tiny.controlnet_pipeline(), tmp_path)
    codec = ldmkit.load_codec(folder / "vae")
    assert codec.config.scale == 0.18215
    for name, part, code in (("unet", "denoiser", "denoiser"), ("controlnet", "adapters.control", "adapter")):
        source = open_source(folder / name)
        assert isinstance(source, DiffusersComponent)
        assert source.path == part
        assert source.tensors(part)
        with pytest.raises(ldmkit.SourceError) as caught:
            ldmkit.load(folder / name)
        assert caught.value.code == f"source.{code}-only"


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.stable_diffusion(), tmp_path_factory.mktemp("sd") / "folder")


def broken(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("file", "changes", "code", "words"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, "source.unsupported", "FluxPipeline"),
        ("unet/config.json", {"_class_name": "UNet3DModel"}, "source.unsupported", "UNet3DModel"),
        ("unet/config.json", {"mystery": 1}, "source.unknown-key", "mystery"),
        ("unet/config.json", {"dual_cross_attention": True}, "source.unsupported", "dual_cross_attention"),
        ("unet/config.json", {"cross_attention_dim": 64}, "compose.dim-mismatch", "64"),
        ("unet/config.json", {"block_out_channels": [32, 96]}, "weights.wrong-shape", "96"),
        ("vae/config.json", {"latent_channels": 8}, "compose.channel-mismatch", "8"),
        ("vae/config.json", {"_class_name": "AutoencoderDC"}, "source.unsupported", "AutoencoderDC"),
        ("text_encoder/config.json", {"architectures": ["BertModel"]}, "source.unsupported", "BertModel"),
        ("text_encoder/config.json", {"num_hidden_layers": 4}, "weights.missing", "layers.3"),
        ("text_encoder/config.json", {"num_hidden_layers": 2}, "weights.unexpected", "layers.2"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "odd"}, "source.unsupported", "odd"),
    ],
)
def test_folders_that_do_not_fit(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], code: str, words: str
) -> None:
    copy = broken(folder, tmp_path)
    edit(copy / file, **changes)
    with pytest.raises(ldmkit.LdmkitError) as caught:
        ldmkit.load(copy)
    assert caught.value.code == code, str(caught.value)
    assert words in str(caught.value)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    for i, (name, code) in enumerate(
        [
            ("unet/diffusion_pytorch_model.safetensors", "no-weights"),
            ("unet/config.json", "not-found"),
            ("scheduler/scheduler_config.json", "not-found"),
            ("vae", "not-found"),
        ]
    ):
        copy = Path(shutil.copytree(folder, tmp_path / str(i)))
        shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
        with pytest.raises(ldmkit.SourceError) as caught:
            ldmkit.load(copy)
        assert caught.value.code == f"source.{code}"


def test_links_that_lead_out(folder: Path, tmp_path: Path) -> None:
    weights = "unet/diffusion_pytorch_model.safetensors"
    for i, name in enumerate([weights, "unet/config.json", "unet", "model_index.json"]):
        copy = Path(shutil.copytree(folder, tmp_path / f"copy{i}"))
        outside = tmp_path / f"outside{i}"
        (copy / name).rename(outside)
        (copy / name).symlink_to(outside)
        with pytest.raises(ldmkit.SourceError) as caught:
            ldmkit.load(copy)
        assert caught.value.code == "source.path-escapes"


def as_snapshot(folder: Path, cache: Path) -> Path:
    """The folder as the hub's cache keeps it: files in `blobs`, links in `snapshots/<revision>`."""
    snapshot = cache / "models--x--y" / "snapshots" / "abc"
    blobs = cache / "models--x--y" / "blobs"
    blobs.mkdir(parents=True)
    for i, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        place = snapshot / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / f"blob{i}")
        up = "/".join([".."] * (len(place.relative_to(snapshot).parts) + 1))
        place.symlink_to(f"{up}/blobs/blob{i}")
    return snapshot


def test_a_snapshot_of_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    snapshot = as_snapshot(folder, tmp_path)
    got = ldmkit.load(snapshot).denoiser.state_dict()
    want = ldmkit.load(folder).denoiser.state_dict()
    assert all(torch.equal(got[key], want[key]) for key in want)
    secret = tmp_path / "models--x--y" / "secret"
    secret.write_text("{}")
    (snapshot / "unet" / "config.json").unlink()
    (snapshot / "unet" / "config.json").symlink_to(secret)
    with pytest.raises(ldmkit.SourceError) as caught:
        ldmkit.load(snapshot)
    assert caught.value.code == "source.path-escapes"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd"])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(ldmkit.SourceError) as caught:
        member(tmp_path, name)
    assert caught.value.code == "source.path-escapes"


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": []},
        {"weight_map": {"w": 3}},
        {"weight_map": {"nothing": "FIRST"}},
        {"weight_map": {}},
    ],
)
def test_shard_lists_that_lie(tmp_path: Path, index: dict[str, Any]) -> None:
    unet = plain_unet()
    unet.save_pretrained(tmp_path, max_shard_size="100KB")
    path = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    data = json.loads(path.read_text())
    if index == {"weight_map": {}}:
        data["weight_map"].pop(next(iter(data["weight_map"])))
        index = data
    first = next(iter(data["weight_map"].values()))
    path.write_text(json.dumps(index).replace("FIRST", first))
    with pytest.raises(ldmkit.SourceError) as caught:
        component_tensors(tmp_path, tmp_path)
    assert caught.value.code == "source.shards-invalid"


def test_shards_that_lead_out_or_are_absent(tmp_path: Path) -> None:
    plain_unet().save_pretrained(tmp_path, max_shard_size="100KB")
    path = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    for name, code in (("../x.safetensors", "path-escapes"), ("absent.safetensors", "shards-missing")):
        path.write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(ldmkit.SourceError) as caught:
            component_tensors(tmp_path, tmp_path)
        assert caught.value.code == f"source.{code}"


def test_what_cannot_be_written_for_diffusers(tmp_path: Path, class_pipe: ldmkit.Pipeline) -> None:
    target = tmp_path / "out"
    with pytest.raises(ldmkit.SourceError) as caught:
        save_diffusers(class_pipe, target)
    assert caught.value.code == "source.not-expressible"
    assert not target.exists()


def test_guidance_that_is_not_one_scale(tmp_path: Path) -> None:
    theirs = ldmkit.load(tiny.saved(tiny.stable_diffusion(), tmp_path / "theirs"))
    parts: Any = {"codec": theirs.codec, "denoiser": theirs.denoiser, "process": theirs.process}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"type": "cfg", "config": {"scale": 3.0, "rescale": 0.5}}, ["guidance_scale=3.0", "guidance_rescale=0.5"]),
        ({"type": "cfg", "config": {"scale": 7.5, "interval": (0.5, 2.0)}}, ["'cfg'", "interval"]),
        ({"type": "none"}, ["guidance_scale=1.0"]),
    ]
    for i, (guidance, words) in enumerate(cases):
        defaults = theirs.defaults.model_copy(update={"guidance": ldmkit.PartSpec(**guidance)})
        pipe = ldmkit.Pipeline.of(**parts, conditioners=theirs.conditioners, wiring=theirs.wiring, defaults=defaults)
        with pytest.warns(ExportWarning) as caught:
            save_diffusers(pipe, tmp_path / str(i))
        said = " ".join(str(warning.message) for warning in caught)
        assert all(word in said for word in words), said


def test_a_safety_checker_that_is_not_written_is_said(tmp_path: Path) -> None:
    """The start's index names one; pipelines here have none."""
    theirs = tiny.saved(tiny.stable_diffusion(), tmp_path / "theirs")
    index = json.loads((theirs / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    (theirs / "model_index.json").write_text(json.dumps(index))
    with pytest.warns(ExportWarning, match="no safety checker is written"):
        save_diffusers(ldmkit.load(theirs), tmp_path / "out")
    assert json.loads((tmp_path / "out/model_index.json").read_text())["safety_checker"] == [None, None]
