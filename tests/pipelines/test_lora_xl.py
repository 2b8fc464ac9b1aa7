"""LoRA files for Stable Diffusion XL: two text encoders, and layers by the names of either layout.

Tolerance as in test_lora_diffusers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lora_files as made
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from safetensors.torch import load_file, save_file

import ldmkit
from ldmkit.run.noise import Noise

NOISE = Noise([3], (4, 16, 16))(0, "start")
UNET = {"r": 4, "lora_alpha": 8, "target_modules": [*made.ATTENTION, "proj_in", "ff.net.2"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, ldmkit.Pipeline]:
    theirs = tiny.stable_diffusion_xl()
    folder = tiny.saved(theirs, tmp_path_factory.mktemp("base"))
    return theirs, folder, ldmkit.load(folder)


def far(base: tuple[Any, Path, ldmkit.Pipeline], file: Path, scale: float = 0.7) -> float:
    """How far our latents with a file are from diffusers'."""
    _, folder, ours = base
    want = made.drawn_by_diffusers(
        folder, [(file, scale)], NOISE, prompt="the red house", negative_prompt="a blur", num_inference_steps=3,
        guidance_scale=4.0, height=32, width=32,
    )  # fmt: skip
    with_file = ours.with_lora(file, scale)
    got, plain = (
        pipe({"text": "the red house"}, negative={"text": "a blur"}, steps=3, guidance=4.0, seeds=[3], size=32).latents
        for pipe in (with_file, ours)
    )
    assert float((plain - want).abs().max() / want.abs().max()) > 0.01
    return float((got - want).abs().max() / want.abs().max())


def file_of(base: tuple[Any, Path, ldmkit.Pipeline], folder: Path) -> Path:
    """Changes of the U-Net and of both text encoders."""
    words = {"r": 3, "lora_alpha": 5, "target_modules": made.TEXT}
    return made.by_diffusers(base[0], folder, UNET, words, words)


def test_both_text_encoders(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    assert far(base, file_of(base, tmp_path)) < 1e-4


@pytest.mark.parametrize("names", ["diffusers", "sgm"])
def test_files_of_kohya(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path, names: str) -> None:
    """kohya's scripts number the encoders from 1, and name the U-Net's layers as sgm does or as diffusers does."""
    new = file_of(base, tmp_path / "new")
    kept = {}
    config = base[2].denoiser.config
    theirs = {entry.keys[0]: key for key, entry in unet_diffusers(config).items()}
    sgm = {key: entry.keys[0] for key, entry in unet_compvis(config).items()}
    for key, tensor in load_file(new).items():
        path, _, end = key.partition(".lora_")
        head, _, rest = path.partition(".")
        if head == "unet" and names == "sgm":
            rest = sgm[theirs[f"{rest}.weight"]].removesuffix(".weight")
        start = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[head]
        flat = f"{start}_{rest.replace('.', '_')}"
        kept[f"{flat}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = tensor
        kept[f"{flat}.alpha"] = torch.tensor(2.0)
    save_file(kept, tmp_path / "kohya.safetensors")
    assert far(base, tmp_path / "kohya.safetensors") < 1e-4


def test_keys_that_do_not_say_of_which_encoder(base: tuple[Any, Path, ldmkit.Pipeline], tmp_path: Path) -> None:
    """As in peft's own folders: both encoders have layers of these names."""
    fc1, file = "base_model.model.text_model.encoder.layers.0.mlp.fc1", tmp_path / "a.safetensors"
    save_file({f"{fc1}.lora_A.weight": torch.ones(2, 32), f"{fc1}.lora_B.weight": torch.ones(64, 2)}, file)
    with pytest.raises(ldmkit.SourceError, match=r"ambiguous.*CLIP text encoder or second CLIP text encoder"):
        base[2].with_lora(file)
