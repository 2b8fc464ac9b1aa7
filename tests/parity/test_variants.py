"""Variants of weights in diffusers' folders: read what diffusers reads, refuse what it refuses, and say what there is.

Weights are compared bit for bit with those of the components that diffusers loads by the same `variant`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from typer.testing import CliRunner

import ldmkit
from ldmkit.cli.app import app
from ldmkit.models.reading import open_source

sys.path.append(str(Path(__file__).parents[1] / "pipelines"))
import tiny_diffusers as tiny

UNET, VAE, TEXT = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"


def plain(folder: Path) -> Path:
    return tiny.saved(tiny.stable_diffusion(0), folder)


def half(folder: Path, **options: Any) -> Path:
    """Other weights, in float16, under the variant fp16."""
    tiny.stable_diffusion(1).to(torch.float16).save_pretrained(folder, variant="fp16", **options)
    return folder


def both(folder: Path) -> Path:
    return half(plain(folder))


def unet_only(folder: Path) -> Path:
    plain(folder)
    tiny.stable_diffusion(1).unet.half().save_pretrained(folder / "unet", variant="fp16")
    return folder


def shards(folder: Path) -> Path:
    return half(plain(folder), max_shard_size="200KB")


def pickles(folder: Path) -> Path:
    return half(plain(folder), safe_serialization=False)


def older_index(folder: Path) -> Path:
    """The name that diffusers gave an index of a variant before 0.33."""
    shards(folder)
    index = folder / f"{UNET}.safetensors.index.fp16.json"
    index.rename(folder / f"{UNET}.safetensors.fp16.index.json")
    return folder


def one_file_and_shards(folder: Path) -> Path:
    """Shards of other weights beside the one file: diffusers takes the shards of a U-Net, transformers the one file."""
    plain(folder)
    other = tiny.stable_diffusion(2)
    for name in ("unet", "text_encoder"):
        for path in folder.glob(f"{name}/*.safetensors"):
            path.rename(path.with_suffix(".kept"))
        getattr(other, name).save_pretrained(folder / name, max_shard_size="50KB")
        for path in folder.glob(f"{name}/*.kept"):
            path.rename(path.with_suffix(".safetensors"))
    return folder


def theirs(folder: Path, variant: str | None) -> Any:
    return diffusers.StableDiffusionPipeline.from_pretrained(
        folder, variant=variant, torch_dtype=torch.float32, low_cpu_mem_usage=False
    )


def check_equal(folder: Path, variant: str | None, scratch: Path) -> None:
    """Saved again by diffusers, without variants, what it read is what we read."""
    theirs(folder, variant).save_pretrained(scratch / "again")
    ours, want = (open_source(path, variant=name) for path, name in ((folder, variant), (scratch / "again", None)))
    for part in ("codec", "denoiser", "conditioners.text"):
        tensors, others = ours.tensors(part), want.tensors(part)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[key].read(True).float(), others[key].read(True)) for key in tensors), part


@pytest.mark.parametrize(
    ("make", "variant"),
    [
        *((make, "fp16") for make in (half, both, shards, pickles, older_index)),
        *((make, None) for make in (both, shards, one_file_and_shards)),
    ],
)
def test_what_diffusers_reads(
    make: Callable[[Path], Path], variant: str | None, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    check_equal(make(tmp_path / "model"), variant, tmp_path)
    assert not [w for w in recwarn if "variant" in str(w.message) and str(tmp_path) in str(w.message)]


def test_a_component_without_the_variant_is_read_from_its_plain_weights(tmp_path: Path) -> None:
    folder = unet_only(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"no weights of variant 'fp16' in vae, text_encoder: the default ones"):
        check_equal(folder, "fp16", tmp_path)


def test_a_variant_that_is_not_there_and_one_that_is_not_asked_for(tmp_path: Path) -> None:
    folder = both(tmp_path / "both")
    with pytest.raises(ldmkit.SourceError, match=r"no-variant.*'bf16'.*variant='fp16'.*default weights"):
        ldmkit.load(folder, variant="bf16")
    with pytest.raises(ValueError, match="bf16"):
        theirs(folder, "bf16")
    only = half(tmp_path / "only")
    with pytest.raises(ldmkit.SourceError, match=r"variant-needed.*variant='fp16'"):
        ldmkit.load(only)
    with pytest.raises(OSError):
        theirs(only, None)
    mixed = unet_only(tmp_path / "mixed")
    (mixed / f"{VAE}.safetensors").rename(mixed / f"{VAE}.bf16.safetensors")
    with pytest.raises(ldmkit.SourceError, match=r"variant-needed.*no default weights, and none of .*'fp16'.*'bf16'"):
        ldmkit.load(mixed, variant="fp16")


def test_components_alone(tmp_path: Path) -> None:
    folder = both(tmp_path)
    halves = ldmkit.load_codec(folder / "vae", variant="fp16").state_dict()  # read as float32: `force_upcast`
    assert torch.equal(halves["encoder.conv_in.weight"], halves["encoder.conv_in.weight"].half().float())
    control = diffusers.ControlNetModel.from_unet(tiny.unet())
    control.half().save_pretrained(tmp_path / "control", variant="fp16")
    with pytest.raises(ldmkit.SourceError, match="variant='fp16'"):
        ldmkit.load_adapter(tmp_path / "control")
    adapter = ldmkit.load_adapter(tmp_path / "control", variant="fp16")
    assert next(adapter.parameters()).dtype == torch.float16


def test_raw_weights_by_either_word(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    with pytest.warns(UserWarning, match="no raw weights"):
        open_source(folder, ema=False)
    tiny.stable_diffusion(1).unet.save_pretrained(folder / "unet", variant="non_ema")
    raw = [
        {key: value.read(True) for key, value in open_source(folder, **how).tensors("denoiser").items()}
        for how in ({"ema": False}, {"variant": "non_ema"}, {"variant": "non_ema", "ema": False})
    ]
    assert all(torch.equal(raw[0][key], one[key]) for one in raw for key in raw[0])
    averaged = open_source(folder).tensors("denoiser")
    assert not torch.equal(averaged["conv_in.weight"].read(True), raw[0]["conv_in.weight"])
    for how in ({"variant": "non_ema", "ema": True}, {"variant": "fp16", "ema": False}):
        with pytest.raises(ldmkit.InputError, match="ema-and-variant"):
            ldmkit.load(folder, **how)  # type: ignore[arg-type]


def test_sources_without_variants_say_so(tmp_path: Path, class_folder: Path) -> None:
    with pytest.raises(ldmkit.InputError, match=r"not-for-native\] variant"):
        ldmkit.load(class_folder, variant="fp16")
    torch.save({"encoder.conv_in.weight": torch.zeros(1)}, tmp_path / "a.ckpt")
    with pytest.raises(ldmkit.LdmkitError):
        ldmkit.load(tmp_path / "a.ckpt", variant="fp16")
    for wrong in ("", 16, b"fp16", True):
        with pytest.raises(ldmkit.InputError, match="variant-type"):
            ldmkit.load(class_folder, variant=wrong)  # type: ignore[arg-type]


def test_the_command_line_and_the_recipe_keep_it(tmp_path: Path) -> None:
    folder, out = both(tmp_path / "model"), tmp_path / "a.png"
    words = ["--text", "the cat", "--steps", "2", "--size", "32", "--variant", "fp16", "--dtype", "float32"]
    ran = CliRunner().invoke(app, ["sample", str(folder), *words, "-o", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    recipe = json.loads(ran.stdout[ran.stdout.index("{") :])["recipe"]
    assert recipe["load"] == {"variant": "fp16", "dtype": "float32"}
    again = CliRunner().invoke(app, ["replay", str(out), "--trust", "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout[again.stdout.index("{") :])["largest_difference"] == 0


def test_an_index_without_its_shards_names_them(tmp_path: Path) -> None:
    folder = shards(tmp_path)
    gone = sorted(folder.glob("unet/*fp16-*-of-*"))[:2]
    for path in gone:
        path.unlink()
    with pytest.raises(ldmkit.SourceError, match=rf"shards-missing.*{gone[0].name}.*{gone[1].name}"):
        ldmkit.load(folder, variant="fp16")
    for path in folder.glob("unet/*.json"):
        if "index" in path.name:
            path.unlink()
    (folder / f"{UNET}.safetensors").unlink()
    with pytest.raises(ldmkit.SourceError, match=r"no-weights.*shards.*without the index"):
        ldmkit.load(folder)
