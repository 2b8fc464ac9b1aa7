"""Pages about published models, run with tiny random models under the files' and folders' names.

Pages: imagen.md, unclip.md, adm.md.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adm_reference import Net, classifier_shapes, filled, saved, unet_shapes
from code_blocks import blocks, commands
from PIL import Image

from ldmkit.cli import main

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "pipelines"))

import deepfloyd_models  # noqa: E402
import karlo_models  # noqa: E402

ADM = Net(width=32, mult=(1, 2), blocks=1, factors=(2,), outputs=6, classes=1000, heads=2, updown=True)
CLASSIFIER = Net(width=64, mult=(1, 2, 3, 4), blocks=1, factors=(2, 4, 8), outputs=1000, head_dim=64, updown=True)


def deepfloyd(folder: Path) -> None:
    """DeepFloyd IF, which draws 16 pixels in place of 64, and pictures of the sizes that its later stages read."""
    deepfloyd_models.all_three(folder / "IF")
    pictures(folder, small=16, medium=32)


def karlo(folder: Path) -> None:
    """Both of Karlo's pipelines, pictures, and embeddings of the prior's statistics."""
    karlo_models.texts().save_pretrained(folder / "karlo")
    karlo_models.variations().save_pretrained(folder / "karlo-variations")
    pictures(folder, a=28, b=28, photo=40)
    for name in ("cat", "dog"):
        made = ["sample", "karlo", "--text", name, "--last", "prior", "--steps", "2", "-o", f"{name}.safetensors"]
        assert main(made) == 0


def guided_diffusion(folder: Path) -> None:
    """Files under published names, whose own flags beside them say that they are smaller."""
    common = "--num_heads 2 --noise_schedule cosine --timestep_respacing 2"
    files = {
        "256x256_diffusion": (ADM._replace(mult=(1, 2, 3, 4)), f"--image_size 64 {common}"),
        "lsun_bedroom": (ADM._replace(classes=None), f"--image_size 16 {common}"),
        "64x64_diffusion": (ADM, f"--image_size 16 {common}"),
        "64_256_upsampler": (ADM._replace(inputs=6), f"--large_size 32 --small_size 16 {common}"),
    }
    for seed, (name, (net, flags)) in enumerate(files.items()):
        saved(folder, name, filled(unet_shapes(net), seed, torch.float32), flags)
    flags = "--image_size 64 --classifier_width 64 --classifier_depth 1 --noise_schedule cosine"
    saved(folder, "256x256_classifier", filled(classifier_shapes(CLASSIFIER, 8)), flags)
    pictures(folder, small=16)


def pictures(folder: Path, **sides: int) -> None:
    """Square pictures by name."""
    for index, (name, side) in enumerate(sides.items()):
        Image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 20 + index).convert("RGB").save(
            folder / f"{name}.png"
        )


@pytest.mark.parametrize(
    ("page", "models"), [("imagen.md", deepfloyd), ("unclip.md", karlo), ("adm.md", guided_diffusion)]
)
def test_the_page(page: str, models: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models(tmp_path)
    found = [block for block in blocks(ROOT / "docs" / page) if block.reason is None]
    code = "import ldmkit\n" + "\n".join(block.body for block in found if block.language == "python")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    for block in found:
        for command in commands(block.body) if block.language == "bash" else ():
            assert main(shlex.split(command)[1:]) == 0, command
