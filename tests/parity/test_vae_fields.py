"""Fields of diffusers' autoencoders: pictures equal to theirs, or a refusal that names the field."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints import vae_config
from ldmkit_checkpoints.vae_config import kl_from_diffusers, vq_from_diffusers

import ldmkit

READERS = {"AutoencoderKL": kl_from_diffusers, "VQModel": vq_from_diffusers}
BASE: dict[str, Any] = {"block_out_channels": [8], "norm_num_groups": 4}


@pytest.mark.parametrize("name", READERS)
def test_every_field_of_the_installed_class_is_known(name: str) -> None:
    theirs = set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self"}
    more = vae_config._DIFFUSERS_KL if name == "AutoencoderKL" else vae_config._DIFFUSERS_VQ
    assert theirs <= vae_config._DIFFUSERS_COMMON | more


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"latent_channels": 2},
        {"layers_per_block": 2},
        {"norm_num_groups": 2},
        {"mid_block_add_attention": False},
        {"act_fn": "swish"},
        {
            "block_out_channels": [8, 12],
            "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
            "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        },
        {"sample_size": 64},
        {"scaling_factor": 0.5},
        {"force_upcast": False},
    ],
    ids=str,
)
def test_pictures_are_theirs(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """1e-4 of the largest value: float32 on both sides."""
    torch.manual_seed(0)
    model = getattr(diffusers, name)(**BASE | changes).eval()
    model.save_pretrained(tmp_path)
    codec = ldmkit.load_codec(tmp_path)
    z = torch.randn(1, model.config.latent_channels, 8, 8)
    factor = model.config.scaling_factor if name == "AutoencoderKL" or "scaling_factor" in changes else 1.0
    with torch.no_grad():
        right, found = model.decode(z / factor).sample, codec.decode(z)
    assert float((found - right).abs().max() / right.abs().max()) < 1e-4


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("field", ["act_fn", "latent_chanels", "down_block_types"])
def test_what_has_no_counterpart_is_named(name: str, field: str) -> None:
    value = ["CrossAttnDownBlock2D"] if field == "down_block_types" else "gelu"
    with pytest.raises(ldmkit.SourceError, match=field):
        READERS[name]({**BASE, field: value})


def test_latents_that_are_indices_are_refused_by_name() -> None:
    with pytest.raises(ldmkit.SourceError, match="lookup_from_codebook"):
        vq_from_diffusers({**BASE, "lookup_from_codebook": True})
