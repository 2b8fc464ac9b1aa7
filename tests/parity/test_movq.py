"""MoVQ, Kandinsky's first stage (diffusers' VQModel with spatial norms): values, folders, fields, tiles, size."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.diffusers.vae_config import vq_from_diffusers, vq_to_diffusers
from ldmkit_codecs.tiled import TiledCodec
from ldmkit_codecs.vq import VQCodec
from network_fields import TOLERANCE, Options, filled, normal, saved

import ldmkit
from ldmkit.cli import main
from ldmkit.models.saving import save_part

SHAPE: Options = {
    "block_out_channels": [32, 64],
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "norm_type": "spatial",
    "num_vq_embeddings": 12,
    "vq_embed_dim": 4,
}
CASES: dict[str, Options] = {
    "kandinsky": {},
    "deeper": {
        "block_out_channels": [32, 32, 96],
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "latent_channels": 3,
        "vq_embed_dim": None,
    },
    "no mid attention": {"mid_block_add_attention": False, "in_channels": 1, "out_channels": 2},
}
VALUES: dict[str, list[Any]] = {
    "in_channels": [1],
    "out_channels": [4],
    "down_block_types": [["DownEncoderBlock2D"] * 2],
    "up_block_types": [["UpDecoderBlock2D"] * 2],
    "block_out_channels": [[64, 32], [32, 48], [32]],
    "layers_per_block": [2],
    "act_fn": ["swish", "gelu"],
    "latent_channels": [3, 8],
    "sample_size": [16],
    "num_vq_embeddings": [5],
    "norm_num_groups": [2, 32],
    "vq_embed_dim": [None, 8],
    "scaling_factor": [1.0, 0.18215],
    "norm_type": ["group", "ada"],
    "mid_block_add_attention": [False],
    "lookup_from_codebook": [True],
    "force_upcast": [True],
}
FULL: Options = {
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_type": "spatial",
    "num_vq_embeddings": 16384,
    "vq_embed_dim": 4,
}


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("case", CASES)
def test_pictures_and_latents_in_float64(case: str, tmp_path: Path) -> None:
    model = saved(diffusers.VQModel, {**SHAPE, **CASES[case]}, tmp_path, {}, None).double()
    codec: Any = ldmkit.load_codec(tmp_path).double()
    images, latents = normal(2, codec.config.in_channels, 16, 24, seed=3), normal(2, codec.channels, 8, 12, seed=4)
    latents = latents[..., : 24 // codec.factor]
    with torch.no_grad():
        want = model.decode(latents.double(), force_not_quantize=True).sample
        assert far(codec.decode(latents.double()), want) < 1e-10, "the same operations in another order"
        assert far(codec.encode(images.double()), model.encode(images.double()).latents) < 1e-10
        quantised = VQCodec(codec.config.model_copy(update={"quantises": True})).double().eval()
        quantised.load_state_dict(codec.state_dict())
        entries = model.quantize.embedding.weight.copy_(normal(*model.quantize.embedding.weight.shape, seed=5))
        quantised.codebook.embedding.weight.copy_(entries)
        assert far(quantised.decode(latents.double()), model.decode(latents.double()).sample) < 1e-10
        assert far(want, quantised.decode(latents.double())) > 0.01, "the codebook has an effect"


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("field", [key for key in inspect.signature(diffusers.VQModel).parameters if key != "self"])
def test_a_field_beside_spatial_norms(field: str, tmp_path: Path) -> None:
    for i, changes in enumerate([{field: value} for value in VALUES[field]] + [{}]):
        folder, drop = tmp_path / str(i), None if changes else field
        model = saved(diffusers.VQModel, SHAPE, folder, changes, drop, filled)
        try:
            codec = ldmkit.load_codec(folder)
        except ldmkit.LdmkitError as error:
            # without the field the defaults describe other tensors than the file has
            assert field in str(error) or (drop and error.code.startswith("weights.")), str(error)
            continue
        assert model is not None, f"{changes or drop}: loaded here, but not there"
        images, latents = normal(1, model.config.in_channels, 16, 24, seed=3), normal(1, codec.channels, 8, 12, seed=4)
        latents = latents[..., : 24 // codec.factor]
        spatial = model.config.norm_type == "spatial"
        scale = 1.0 if spatial else model.config.scaling_factor
        with torch.no_grad():
            want = model.decode(latents / scale, force_not_quantize=spatial).sample
            assert far(codec.decode(latents), want) < TOLERANCE, changes
            assert far(codec.encode(images), model.encode(images).latents * scale) < TOLERANCE, changes


def test_it_is_written_back(tmp_path: Path) -> None:
    model = saved(diffusers.VQModel, SHAPE, tmp_path / "movq", {}, None)
    save_part("codec", ldmkit.load_codec(tmp_path / "movq"), tmp_path / "codec")
    main(["export", str(tmp_path / "codec"), "--out", str(tmp_path / "again")])
    again = diffusers.VQModel.from_pretrained(tmp_path / "again")
    latents = normal(1, 4, 5, 6, seed=1)
    with torch.no_grad():
        want, got = (m.decode(latents, force_not_quantize=True).sample for m in (model, again))
    assert torch.equal(got, want)
    assert ldmkit.load_codec(tmp_path / "again").config == ldmkit.load_codec(tmp_path / "movq").config


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"spatial_groups": 16}, "16 groups"),
        ({"spatial_groups": 32}, "of quantised latents"),
        ({"quantises": False}, "of unquantised latents"),
        ({"spatial_groups": 32, "quantises": False, "embed_dim": 3}, "another width"),
    ],
)
def test_what_no_file_says_is_not_written(changes: Options, word: str) -> None:
    with pytest.raises(ldmkit.SourceError, match=word):
        vq_to_diffusers({"widths": (32, 64), **changes})


@pytest.mark.parametrize("attention", [True, False])
def test_tiles_give_the_whole_picture(attention: bool) -> None:
    config: Options = {"widths": (16, 16, 16, 16), "blocks": 1, "norm_groups": 4, "spatial_groups": 8}
    config |= {"quantises": False, "codebook_size": 8, "mid_attention": "vanilla" if attention else "none"}
    config |= {"attention_levels": (3,) if attention else ()}
    codec: Any = filled(VQCodec(config)).double()
    tiled = TiledCodec.wrap(codec, budget_mib=3.0)
    plan = tiled.plan(200, 328)
    assert plan.count > 2 and any(s.margin % codec.factor or s.height % codec.factor == 0 for s in plan.stretches)
    latents = normal(2, 4, 25, 41, seed=2).double()
    with torch.no_grad():
        assert far(tiled.decode(latents), codec.decode(latents)) < 1e-9
        images = normal(1, 3, 200, 328, seed=1).double()
        assert far(tiled.encode(images), codec.encode(images)) < 1e-9


def test_full_size_on_meta() -> None:
    with torch.device("meta"):
        codec = VQCodec(vq_from_diffusers({"_class_name": "VQModel", **FULL}))
        theirs = diffusers.VQModel(**FULL)
    count = sum(p.numel() for p in codec.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) and round(count / 1e6, 1) == 67.8
