"""Options of original yaml files that few models use: a schedule of one's own, and classes beside the time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ldmkit_checkpoints.compvis.unet_config import unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_denoisers.unet import UNet

import ldmkit

UNET: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1,
    "attention_resolutions": [2], "num_heads": 4,
}  # fmt: skip
PARAMS: dict[str, Any] = {
    "image_size": 8, "channels": 3, "cond_stage_config": "__is_unconditional__",
    "first_stage_config": {"target": "ldm.models.autoencoder.IdentityFirstStage"},
}  # fmt: skip


def written(folder: Path, unet: dict[str, Any], **params: Any) -> Path:
    """A checkpoint of pixels with random weights, and its yaml beside it."""
    config = unet_from_compvis(unet)
    torch.manual_seed(0)
    network = UNet(config)
    state: dict[str, Any] = {}
    for native, entry in unet_compvis(config).items():
        tensor = torch.randn_like(network.state_dict()[native]) * 0.1
        state |= dict(zip((f"model.diffusion_model.{key}" for key in entry.keys), entry.write(tensor), strict=True))
    torch.save({"state_dict": state}, folder / "model.ckpt")
    target = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
    whole = {**copy.deepcopy(PARAMS), **params, "unet_config": {"target": target, "params": unet}}
    model = {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": whole}}
    (folder / "model.yaml").write_text(yaml.safe_dump(model))
    return folder / "model.ckpt"


def test_given_betas(tmp_path: Path) -> None:
    betas = np.linspace(1e-4, 0.02, 200).tolist()
    pipe = ldmkit.load(written(tmp_path, UNET, given_betas=betas, timesteps=1000))
    process: Any = pipe.process
    assert process.timesteps == 200
    assert np.allclose(process.table.alpha_bars, np.cumprod(1 - np.asarray(betas)), rtol=1e-12)
    assert pipe({}, steps=2).latents.isfinite().all()
    (tmp_path / "bad").mkdir()
    for betas_given, word in (([0.1, 2.0], "between 0 and 1"), ("linear", "two betas"), ([], "two betas")):
        path = written(tmp_path / "bad", UNET, given_betas=betas_given)
        with pytest.raises(ldmkit.LdmkitError, match=word):
            ldmkit.load(path)


def test_classes_beside_the_time(tmp_path: Path) -> None:
    """conditioning_key adm: the class reaches the network as a vector, which a table turns into features."""
    identity = {"target": "torch.nn.Identity"}
    adm = {"conditioning_key": "adm", "cond_stage_key": "class_label", "cond_stage_config": identity}
    pipe = ldmkit.load(written(tmp_path, {**UNET, "num_classes": 10}, **adm))
    first, second = (pipe({"vector": [number]}, steps=2).latents for number in (3, 4))
    assert not torch.equal(first, second)
    with torch.no_grad():
        table = pipe.denoiser.get_parameter("vector_embed.table.weight")
        table[4] = table[3]
    assert torch.equal(pipe({"vector": [4]}, steps=2).latents, first), "the number is the row of the table"
    with pytest.raises(ldmkit.CompositionError, match="can be left out"):
        pipe({"vector": [3]}, steps=1, guidance=2.0)
    bert = {"target": "ldm.modules.encoders.modules.BERTEmbedder", "params": {"n_embed": 32, "n_layer": 1}}
    with pytest.raises(ldmkit.SourceError, match="adm"):
        ldmkit.load(written(tmp_path, {**UNET, "num_classes": 10}, **{**adm, "cond_stage_config": bert}))
