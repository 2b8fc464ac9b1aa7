"""Inputs of adapters that would be drawn as something else: each is refused or told, and its like is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ip_files as ip
import lora_files
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import ldmkit
from ldmkit.errors import InputError

POINTS = [(8 + i % 5 * 4, 6 + i, 1.0) for i in range(18)]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> ldmkit.Pipeline:
    return ldmkit.load(tiny.saved(tiny.controlnet_pipeline(), tmp_path_factory.mktemp("published") / "control"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.stable_diffusion(), tmp_path_factory.mktemp("base"))


def told(pipe: ldmkit.Pipeline, recwarn: pytest.WarningsRecorder, **inputs: Any) -> str:
    """The warnings of a run."""
    recwarn.clear()
    pipe({"text": "a house", **inputs}, steps=2, seeds=[3], size=32)
    return "\n".join(str(one.message) for one in recwarn)


def people(**keys: Any) -> dict[str, Any]:
    return {"people": [keys] if keys else [], "canvas_width": 32, "canvas_height": 32}


EMPTY: dict[str, dict[str, Any]] = {
    "nobody": people(),
    "only places in space": people(pose_keypoints_3d=[1.0] * 100),
    "outside": people(pose_keypoints_2d=[v for x, y, c in POINTS for v in (x * 90, y * 90, c)]),
    "unsure": people(pose_keypoints_2d=[v for x, y, _ in POINTS for v in (x, y, 0)]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_pose_that_is_not_there(control: ldmkit.Pipeline, recwarn: pytest.WarningsRecorder, name: str) -> None:
    words = told(control, recwarn, hint={"picture": EMPTY[name], "extract": "pose"})
    assert "the hint of extractor 'pose'" in words
    assert "is one colour in every pixel" in words
    drawn = people(pose_keypoints_2d=[v for point in POINTS for v in point])
    assert "one colour" not in told(control, recwarn, hint={"picture": {**drawn, "animals": []}, "extract": "pose"})


def test_edges_of_a_flat_picture(control: ldmkit.Pipeline, recwarn: pytest.WarningsRecorder) -> None:
    flat = np.full((32, 32, 3), 99, np.uint8)
    assert "one colour" in told(control, recwarn, hint={"picture": flat, "extract": "canny"})


def test_labels_of_a_format_that_changes_them(tmp_path: Path) -> None:
    labels = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    labels.save(tmp_path / "map.png")
    labels.save(tmp_path / "map.jpg")
    assert ldmkit.read_label_map(tmp_path / "map.png").flatten().tolist() == list(range(64))
    assert ldmkit.read_label_map(labels).flatten().tolist() == list(range(64))
    for source in (tmp_path / "map.jpg", Image.open(tmp_path / "map.jpg"), (tmp_path / "map.jpg").read_bytes()):
        with pytest.raises(InputError, match=r"picture-not-labels.*JPEG changes levels.*PNG"):
            ldmkit.read_label_map(source)


def inpaint_condition() -> Tensor:
    """As `make_inpaint_condition` of diffusers' documentation: [0, 1], and -1 where the mask is."""
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    picture[:, 8:20, 8:20] = -1
    return picture


def test_a_condition_for_inpainting(control: ldmkit.Pipeline, recwarn: pytest.WarningsRecorder) -> None:
    assert "as in a condition for inpainting" in told(control, recwarn, hint=inpaint_condition())
    edges = torch.where(torch.rand(3, 32, 32) > 0.5, 1.0, -1.0)
    whole = inpaint_condition() * 2 - 1
    for fine in (edges, edges * torch.tensor([0.0, 1, 1]).reshape(3, 1, 1), whole.clamp(-1, 1)):
        assert "inpainting" not in told(control, recwarn, hint=fine)


def test_an_adapter_without_its_inputs(control: ldmkit.Pipeline, recwarn: pytest.WarningsRecorder) -> None:
    assert "is given none of its inputs ('hint')" in told(control, recwarn)
    assert "none of its inputs" not in told(control, recwarn, hint=np.eye(32, dtype=np.uint8) * 255)


def test_embeddings_in_the_layout_of_diffusers(base: Path, tmp_path: Path) -> None:
    """ip_adapter_image_embeds hold [negative, positive], and a plain adapter's negative is zeros."""
    halves = ip.adapter(tiny.stable_diffusion().unet, "plain", 3)
    pipe = ldmkit.load(base).with_adapter_file(ip.saved(halves, tmp_path / "ip.safetensors"))
    one = torch.randn(1, 1, ip.SOURCE)
    with pytest.raises(InputError, match=r"signal-blank.*embedding 0 of 2 is zeros.*\[negative, positive\]"):
        pipe({"text": "a house", "ip-image": torch.cat([torch.zeros_like(one), one])}, steps=2)
    pipe({"text": "a house", "ip-image": one}, steps=2, size=32)
    pipe({"text": "a house", "ip-image": torch.zeros_like(one)}, steps=2, size=32)


def test_the_pipeline_before_fusing_is_not_moved(base: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    file = lora_files.by_diffusers(tiny.stable_diffusion(), tmp_path, {"r": 2, "target_modules": ["to_q"]})
    fused = ldmkit.load(base).with_lora(file).fused()
    recwarn.clear()
    fused.unfused()
    assert not list(recwarn)
    fused.to(torch.float64)
    with pytest.warns(match=r"float32 on cpu, this one is torch.float64 on cpu; .unfused\(\)\.to"):
        fused.unfused()


def test_a_name_of_every_file_is_no_word(base: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name in ("embeddings", "kitten"):
        save_file({"emb_params": torch.randn(2, tiny.TEXT_WIDTH)}, tmp_path / f"{name}.safetensors")
    pipe = ldmkit.load(base)
    with pytest.warns(match=r"its word is the file's name, 'embeddings'.*--embedding FILE=WORD"):
        pipe.with_embedding(tmp_path / "embeddings.safetensors")
    recwarn.clear()
    pipe.with_embedding(tmp_path / "embeddings.safetensors", "<s0><s1>")
    pipe.with_embedding(tmp_path / "kitten.safetensors")
    assert not [one for one in recwarn if "its word" in str(one.message)]
