"""The recipes in examples/stable_diffusion train at the command line, here on a tiny Stable Diffusion and encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ip_files as made
import pytest
import tiny_diffusers as tiny
import torch

import ldmkit
from ldmkit.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "stable_diffusion"
FEW = ("steps=2", "data.size=[32,32]", "tracking.every=1", "previews.every=2", "previews.steps=1")
OWN: dict[str, tuple[str, ...]] = {
    "dreambooth": ("prior.count=2", "prior.steps=1"),
    "ip_adapter": ("data.batch=8", "accumulate=2", "data.held_out=2", "validation.every=2", "validation.count=2"),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_few_steps(name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer and smaller pictures; everything else is as the recipe says, probes of its conditions too."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / f"{name}.yaml", tmp_path)
    tiny.saved(tiny.stable_diffusion(), tmp_path / "stable-diffusion-v1-5")
    images = made.encoder(tmp_path / "image_encoder")
    for folder in ("photos", "pictures"):
        (tmp_path / folder).mkdir()
        for i in range(10):
            made.picture(i).save(tmp_path / folder / f"{i}.png")
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"picture {chr(97 + i)}"}) for i in range(10)]
    (tmp_path / "pictures" / "metadata.jsonl").write_text("\n".join(lines))
    options = [word for one in (*FEW, f"precision={precision}", *OWN[name]) for word in ("--set", one)]
    assert main(["train", f"{name}.yaml", *options]) == 0
    pipe = ldmkit.load("stable-diffusion-v1-5")
    if name == "dreambooth":
        tuned, more = pipe.with_lora("runs/sks-dog/model"), {}
    else:
        tuned, more = pipe.with_adapter_file("runs/ip-adapter/model", encoder=images), {"ip-image": made.picture(3)}
    call = {"steps": 2, "seeds": [1], "size": 32, "guidance": 3.0}
    plain = pipe({"text": "a photo of sks dog"}, **call).latents
    assert not torch.equal(tuned({"text": "a photo of sks dog", **more}, **call).latents, plain)
