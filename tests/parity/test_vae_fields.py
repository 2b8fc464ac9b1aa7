"""Every field of diffusers' autoencoders: latents and pictures equal to theirs, or a refusal that names the field."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.diffusers.tiny import tiny_from_diffusers
from ldmkit_checkpoints.diffusers.vae_config import kl_from_diffusers, vq_from_diffusers
from network_fields import TOLERANCE, Options, filled, normal, saved
from torch import Tensor

import ldmkit

READERS: dict[str, Any] = {
    "AutoencoderKL": kl_from_diffusers,
    "VQModel": vq_from_diffusers,
    "AutoencoderTiny": tiny_from_diffusers,
}
LEVELS: Options = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}
BASES: dict[str, Options] = {
    "AutoencoderKL": LEVELS,
    "VQModel": {**LEVELS, "num_vq_embeddings": 16},
    "AutoencoderTiny": {
        "encoder_block_out_channels": [8, 8],
        "decoder_block_out_channels": [8, 8],
        "num_encoder_blocks": [1, 2],
        "num_decoder_blocks": [2, 1],
    },
}
ATTENDED: Options = {
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
}
STATISTICS: Options = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [0.5, 1.0, 2.0, 3.0]}
VALUES: dict[str, list[Any]] = {
    "in_channels": [1, 4],
    "out_channels": [1, 4],
    "down_block_types": [["AttnDownEncoderBlock2D", "DownEncoderBlock2D"], ["DownBlock2D"] * 2, ["DownEncoderBlock2D"]],
    "up_block_types": [["UpDecoderBlock2D", "AttnUpDecoderBlock2D"], "UpDecoderBlock2D"],
    "block_out_channels": [[16, 8], [8], [8, 8]],
    "layers_per_block": [2, 0],
    "act_fn": ["swish", "silu", "mish", "relu"],
    "latent_channels": [1, 4, 8],
    "norm_num_groups": [2, 3, None],
    "sample_size": [16, 512],
    "scaling_factor": [0.18215, 0.5, 1.0, -2, 0, None, "x"],
    "shift_factor": [None, 0.0, 0.3, "x"],
    "latents_mean": [STATISTICS["latents_mean"]],
    "latents_std": [STATISTICS["latents_std"], [0, 0, 0, 0]],
    "force_upcast": [True, False],
    "use_quant_conv": [False, None],
    "use_post_quant_conv": [False, "x"],
    "mid_block_add_attention": [False],
    "num_vq_embeddings": [4, 300, None],
    "vq_embed_dim": [2, 0],
    "norm_type": ["group", "spatial"],
    "lookup_from_codebook": [False, True],
    "encoder_block_out_channels": [[16, 16], [8]],
    "decoder_block_out_channels": [[8, 16], [8, 8, 8]],
    "num_encoder_blocks": [[0, 3], [1, 1, 1]],
    "num_decoder_blocks": [[1, 1], [1]],
    "upsample_fn": ["nearest", "bilinear"],
    "upsampling_scaling_factor": [2, 2.0, 3],
    "latent_magnitude": [1, 6.0],
    "latent_shift": [0.0],
}


def fields(name: str) -> list[str]:
    return [key for key in inspect.signature(getattr(diffusers, name).__init__).parameters if key != "self"]


def filled_vq(model: Any) -> Any:
    filled(model).quantize.embedding.weight.data = normal(*model.quantize.embedding.weight.shape, seed=8)
    return model


def made(name: str, folder: Path, changes: Options, drop: str | None = None) -> Any:
    """Their codec; None where they cannot make it: then the folder is the base's, its config edited."""
    fill = filled_vq if name == "VQModel" else filled
    return saved(getattr(diffusers, name), BASES[name], folder, changes, drop, fill)


def theirs_of(model: Any, name: str, images: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Their pictures of standardised latents, and their latents of pictures, as pipelines scale them."""
    config = model.config
    scale, shift = config.scaling_factor, config.get("shift_factor") or 0.0
    if config.get("latents_mean") and config.get("latents_std"):
        shift, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
        scale = scale / std
    with torch.no_grad():
        encoded = model.encode(images)
        raw = encoded.latent_dist.mean if name == "AutoencoderKL" else encoded.latents
        return model.decode(latents / scale + shift).sample, (raw - shift) * scale


def far(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


def check(name: str, folder: Path, changes: Options, drop: str | None = None) -> None:
    model = made(name, folder, changes, drop)
    try:
        codec = ldmkit.load_codec(folder)
    except ldmkit.LdmkitError as error:
        named = any(key in str(error) for key in [*changes, drop or "weights"])
        assert named or (model is None and error.code.startswith("weights.")), str(error)
        return
    assert model is not None, f"{changes or drop}: loaded here, but not there"
    images, latents = normal(1, model.config.in_channels, 16, 24, seed=3), normal(1, codec.channels, 8, 12, seed=4)
    pictures, standard = theirs_of(model, name, images, latents)
    assert far(codec.decode(latents), pictures) < TOLERANCE
    assert far(codec.encode(images), standard) < TOLERANCE


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "field"), [(name, field) for name in BASES for field in fields(name)])
def test_a_field(name: str, field: str, tmp_path: Path) -> None:
    assert VALUES[field], "a field of the installed class without a value to try"
    for i, value in enumerate(VALUES[field]):
        check(name, tmp_path / str(i), {field: value})
    check(name, tmp_path / "missing", {}, field)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "changes"),
    [("AutoencoderKL", STATISTICS), *((name, ATTENDED) for name in ("AutoencoderKL", "VQModel"))],
)
def test_fields_that_go_together(name: str, changes: Options, tmp_path: Path) -> None:
    check(name, tmp_path, changes)
    ldmkit.load_codec(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_misspelt_field_is_named(name: str) -> None:
    for field in ("latent_chanels", "scaling_factors"):
        with pytest.raises(ldmkit.SourceError, match=field):
            READERS[name]({**BASES[name], field: 4})


@pytest.mark.parametrize("name", READERS)
def test_values_of_another_type_are_no_raw_error(name: str) -> None:
    free = {"sample_size", "latent_magnitude", "latent_shift"}  # of tiles and thumbnails: no picture depends on them
    assert len(fields(name)) > 0
    for field in fields(name):
        for value in (None, "x", -1, 0, 1.5, [], {}, [None], ["x", "y"], [0, 0], [[1], [2]], float("inf")):
            try:
                READERS[name]({**BASES[name], field: value})
            except ldmkit.LdmkitError as error:
                assert field in str(error) and field not in free, (field, value, str(error))
