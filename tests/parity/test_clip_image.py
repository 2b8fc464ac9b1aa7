"""CLIP vision encoders: pictures made ready as transformers does it, and the encoder's numbers in float64.

Tolerances: 1e-10 in float64 on tensors. Pictures made ready agree to 1e-6 of about 2: both round a division in float32,
one of them after a multiplication in float64.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ldmkit_checkpoints.transformers.vision import open_vision
from ldmkit_conditioners.clip_image import ClipImage
from ldmkit_conditioners.vision_pictures import Preprocessing
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

import ldmkit
from ldmkit.models.reading import part_of
from ldmkit.testing import check_conditioner

SIZES = [(512, 512), (768, 512), (333, 501), (224, 224), (1, 1), (3, 700), (223, 225), (1080, 1920), (60, 17)]
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 37, "projection_dim": 20, "num_hidden_layers": 3, "num_attention_heads": 4,
    "image_size": 30, "patch_size": 8,
}  # fmt: skip


def photo(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Smooth gradients with noise on top."""
    rng = np.random.default_rng(height * 7 + width)
    y, x = np.mgrid[:height, :width] / max(height, width)
    wave = np.stack([np.sin(9 * x + c) * np.cos(7 * y - c) for c in range(3)], axis=-1) * 100 + 128
    image = Image.fromarray((wave + rng.normal(0, 12, wave.shape)).clip(0, 255).astype(np.uint8))
    return image.convert(mode)


def saved_encoder(folder: Path, **changes: Any) -> CLIPVisionModelWithProjection:
    torch.manual_seed(3)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():  # of their own start some are zeros or ones
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    return model


def loaded(folder: Path, layer: str) -> ClipImage:
    spec, keymap, tensors = open_vision(folder, layer)

    class Alone(ldmkit.Source):
        @property
        def spec(self) -> Any:
            raise AssertionError

        def tensors(self, part: str) -> Any:
            from ldmkit_checkpoints.inventory import Inventory

            return Inventory(tensors, self.report, "encoder").take(part, keymap)

    own = ldmkit.PartSpec(type=spec.type, config=spec.config)
    return part_of(
        Alone("encoder"), "conditioner", own, "conditioners.image", device=torch.device("cpu"), dtype=torch.float64,
        mapped=False,
    )  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"size": 30, "crop_size": 30}, {"size": 40, "crop_size": {"height": 50, "width": 30}}]
)
def test_sizes(size: tuple[int, int], options: dict[str, Any]) -> None:
    """Also where the picture is smaller than what is cut out of it."""
    from ldmkit_checkpoints.transformers.vision import preprocessing_from_hf

    processor = CLIPImageProcessorPil(**options)
    image = photo(*size)
    want = processor(image, return_tensors="pt").pixel_values[0]
    ours = Preprocessing.of(preprocessing_from_hf(json.loads(processor.to_json_string()), 224, "here"), "p")
    got = ours(ldmkit.read_picture(image))
    assert got.shape == want.shape and float((got - want).abs().max()) < 1e-6


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "RGB", "HSV", "YCbCr"])
def test_modes(mode: str, tmp_path: Path) -> None:
    """Every mode that a picture may have here means what it means there; of files too."""
    image = photo(300, 200, mode)
    want = CLIPImageProcessorPil()(image, return_tensors="pt").pixel_values[0]
    try:
        picture = ldmkit.read_picture(image)
    except ldmkit.InputError:
        assert mode in ("HSV", "YCbCr")
        return
    assert float((Preprocessing()(picture) - want).abs().max()) < 1e-6
    if mode not in ("HSV", "YCbCr"):
        image.save(tmp_path / "a.png")
        assert torch.equal(ldmkit.read_picture(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("changes", [
    {}, {"resample": 2}, {"do_center_crop": False, "size": {"height": 30, "width": 30}}, {"do_normalize": False},
    {"do_rescale": False}, {"rescale_factor": 0.01, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.4, 0.3]},
    {"do_resize": False},
])  # fmt: skip
def test_processors(changes: dict[str, Any]) -> None:
    from ldmkit_checkpoints.transformers.vision import preprocessing_from_hf

    processor = CLIPImageProcessorPil(**changes)
    image = photo(301, 240)
    want = processor(image, return_tensors="pt").pixel_values[0]
    ours = Preprocessing.of(preprocessing_from_hf(json.loads(processor.to_json_string()), 224, "here"), "p")
    error = float((ours(ldmkit.read_picture(image)) - want).abs().max())
    assert error <= 1e-6 * float(want.abs().max())


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
@pytest.mark.parametrize(
    "changes", [{}, {"image_size": 32, "patch_size": 8}, {"patch_size": 30, "num_hidden_layers": 1}]
)
def test_encoder(tmp_path: Path, act: str, changes: dict[str, Any]) -> None:
    """All three states of two pictures, and IP-Adapter's nulls, in float64."""
    model = saved_encoder(tmp_path, hidden_act=act, **changes).double()
    size = model.config.image_size
    processor = CLIPImageProcessorPil(size=size, crop_size=size)
    pictures = [photo(70, 50), photo(33, 44)]
    pixels = processor(pictures, return_tensors="pt").pixel_values.double()
    with torch.no_grad():
        want, black = (model(p, output_hidden_states=True) for p in (pixels, torch.zeros_like(pixels)))
        ours = {layer: loaded(tmp_path, layer) for layer in ("projected", "penultimate", "last")}
        row = [tuple(map(ldmkit.read_picture, pictures))]
        found = {layer: part(row).value for layer, part in ours.items()}
        nulls = {layer: part.null(ldmkit.Tokens(found[layer])).value for layer, part in ours.items()}
    tokens = found["last"].shape[1] // 2
    for layer, states, empty in (
        ("projected", want.image_embeds, torch.zeros_like(want.image_embeds)),
        ("penultimate", want.hidden_states[-2].flatten(0, 1), black.hidden_states[-2].flatten(0, 1)),
        ("last", want.hidden_states[-1].flatten(0, 1), black.hidden_states[-1].flatten(0, 1)),
    ):
        # pixels differ by the rounding of float32 there, 1e-7, before the network
        assert float((found[layer][0] - states).abs().max()) < 1e-5 * float(states.abs().max())
        assert float((nulls[layer][0] - empty).abs().max()) < 1e-10
        assert ours[layer].config.length == (1 if layer == "projected" else tokens)
    with torch.no_grad():
        tower = ours["last"].tower
        assert float((tower.projected(pixels) - want.image_embeds).abs().max()) < 1e-10
        assert float((tower(pixels) - want.hidden_states[-1]).abs().max()) < 1e-10


def test_a_whole_clip_and_a_pipelines_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 60,
    }
    text |= {"bos_token_id": 57, "eos_token_id": 58, "pad_token_id": 58}
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=24)).eval()
    whole.save_pretrained(tmp_path / "pipeline" / "image_encoder")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    CLIPImageProcessorPil(size=36, crop_size=30).save_pretrained(tmp_path / "pipeline" / "feature_extractor")
    found = loaded(tmp_path / "pipeline", "projected")
    assert found.config.pictures.shortest == 36 and found.dim == 24
    pixels = torch.randn(1, 3, 30, 30, dtype=torch.float64)
    with torch.no_grad():
        want = whole.double().get_image_features(pixels)
        want = getattr(want, "pooler_output", want)
        assert float((found.tower.projected(pixels) - want).abs().max()) < 1e-10


def test_published_shapes() -> None:
    """ViT-H/14 and bigG: their numbers of parameters, as transformers has them on the meta device."""
    for name, changes in {
        "ViT-H/14": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
                     "patch_size": 14, "projection_dim": 1024, "hidden_act": "gelu", "image_size": 224},
        "bigG": {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 16,
                 "patch_size": 14, "projection_dim": 1280, "hidden_act": "gelu", "image_size": 224},
    }.items():  # fmt: skip
        from ldmkit_checkpoints.transformers.vision import vision_from_hf
        from ldmkit_conditioners.vision_tower import VisionConfig, VisionTower

        with torch.device("meta"):
            config = CLIPVisionConfig(**changes)
            theirs = CLIPVisionModelWithProjection(config)
            ours = VisionTower(VisionConfig.of(vision_from_hf(config.to_dict(), name), name))
        count = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
        assert count[0] == count[1] > 600e6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "siglip_vision_model"}, "unsupported.*siglip"), ({"layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ({"architectures": ["CLIPVisionModel"]}, "unsupported.*CLIPVisionModel.*WithProjection"),
        ({"hidden_act": "relu"}, "hidden_act"), ({"surprise": 1}, "unknown key 'surprise'"),
        ({"image_size": [30, 30]}, "image_size"), ({"num_attention_heads": 5}, "multiple of 5 heads"),
        ({"projection_dim": 21}, "wrong-shape"), ({"num_hidden_layers": 4}, "missing"),
    ],
)  # fmt: skip
def test_bad_encoders(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    saved_encoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ldmkit.LdmkitError, match=words):
        loaded(tmp_path, "projected")


def test_a_picture_that_would_be_huge() -> None:
    """One row of 60000 pixels would have 3 billion numbers once its shorter side is 224."""
    part = ClipImage({"width": 8, "layers": 1, "heads": 1, "mlp": 8, "projection": 4, "patch": 112})
    with pytest.raises(ldmkit.InputError, match=r"picture-too-large.*x\[0\].*67200000 x 224"):
        part.parse(torch.zeros(3, 1, 300000), "x")


def test_kit() -> None:
    check_conditioner(ClipImage).require()
