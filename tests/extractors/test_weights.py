"""Extractors with weights: depth against transformers' pipelines, HED against OpenCV and plain convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import depth_folders
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from ldmkit_extractors.depth import Depth
from ldmkit_extractors.hed import Hed, Network, scribbled
from PIL import Image
from torch import Tensor

import ldmkit
from ldmkit.models.weights import write_safetensors
from ldmkit.testing import check_extractor
from ldmkit.testing.extractor import drawing

Array = np.ndarray[Any, Any]
MODELS: dict[str, tuple[Callable[[], Any], bool]] = {
    "dpt": (depth_folders.dpt, False),
    "depth-anything": (depth_folders.depth_anything, False),
    "metric": (lambda: depth_folders.depth_anything(depth_estimation_type="metric", max_depth=20), True),
    "glpn": (depth_folders.glpn, True),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("depth")
    return lambda name: (
        folder / name if (folder / name).exists() else depth_folders.saved(MODELS[name][0](), folder / name)
    )


def levels_of(extractor: ldmkit.Extractor, picture: Tensor) -> Array:
    hint = ldmkit.to_levels(extractor.extract(picture))
    assert (hint == hint[..., :1]).all()
    return hint[..., 0].astype(int)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(64, 64), (40, 56), (33, 90)])
def test_depth_is_that_of_transformers(models: Callable[[str], Path], name: str, size: tuple[int, int]) -> None:
    """The map of its own pipeline, near is white: inverse depth from end to end, metres by percentiles and inverted."""
    folder, picture = models(name), drawing(size)
    processor = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    estimate = hf.pipeline("depth-estimation", model=str(folder), image_processor=processor)
    depth = estimate(Image.fromarray(ldmkit.to_levels(picture)))["predicted_depth"].double().numpy()
    assert depth.shape == size and depth.std() > 0
    low, high = np.percentile(depth, (2, 85)) if MODELS[name][1] else (depth.min(), depth.max())
    near = ((depth - low) / (high - low)).clip(0, 1)
    wanted = 255 * (1 - near if MODELS[name][1] else near)
    assert np.abs(levels_of(Depth(model=str(folder)), picture) - wanted).max() <= 0.5 + 0.01


@pytest.mark.parametrize("size", [(64, 64), (40, 57)])
def test_zoe_depth_by_opencv_s_cubic(tmp_path: Path, size: tuple[int, int]) -> None:
    """Its own post-processing needs torchvision: the map without the edges that were added, by another resizing."""
    cv2 = pytest.importorskip("cv2")
    folder, picture = depth_folders.saved(depth_folders.zoe(), tmp_path), drawing(size)
    model = hf.AutoModelForDepthEstimation.from_pretrained(folder)
    given = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")(ldmkit.to_levels(picture), return_tensors="pt")
    with torch.no_grad():
        predicted = model(**given).predicted_depth[0].numpy()
    down, right = (int((side / 2) ** 0.5 * 3) for side in size)
    whole = cv2.resize(predicted, (size[1] + 2 * right, size[0] + 2 * down), interpolation=cv2.INTER_CUBIC)
    depth = whole[down:-down, right:-right].astype(np.float64)
    low, high = np.percentile(depth, (2, 85))
    wanted = 255 * (1 - ((depth - low) / (high - low)).clip(0, 1))
    assert np.abs(levels_of(Depth(model=str(folder)), picture) - wanted).max() <= 0.5 + 0.01


def test_percentiles_can_be_chosen(models: Callable[[str], Path]) -> None:
    folder = str(models("metric"))
    clipped = levels_of(Depth(model=folder, percentiles=(25, 75)), drawing((64, 64)))
    whole = levels_of(Depth(model=folder, percentiles=(0, 100)), drawing((64, 64)))
    assert (clipped == 0).mean() >= 0.25 > (whole == 0).mean() and (clipped == 255).mean() >= 0.25


@pytest.mark.parametrize("name", ["dpt", "glpn"])
def test_depth_keeps_the_contract(models: Callable[[str], Path], name: str) -> None:
    check_extractor(Depth, {"model": str(models(name))}).require()


def test_depth_that_cannot_be_read(models: Callable[[str], Path], tmp_path: Path) -> None:
    cases: list[tuple[Any, str, str]] = [(None, "source.no-weights", "depth:model=FOLDER")]
    cases += [(str(tmp_path / "nowhere"), "source.no-weights", "nowhere")]
    (tmp_path / "empty").mkdir()
    cases += [(str(tmp_path / "empty"), "source.not-depth", "zoedepth")]
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    cases += [(str(tmp_path / "bert"), "source.not-depth", "bert")]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((models("dpt") / "config.json").read_bytes())
    cases += [(str(tmp_path / "bare"), "source.unreadable", "transformers")]
    for model, code, says in cases:
        with pytest.raises(ldmkit.SourceError) as error:
            Depth(model=model).extract(drawing((8, 8)))
        assert error.value.code == code and says in str(error.value), str(error.value)


def test_depth_with_a_tensor_missing(models: Callable[[str], Path], tmp_path: Path) -> None:
    """transformers would draw it at random, with a warning."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lacking"
    folder.mkdir()
    for file in models("dpt").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["head.head.0.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ldmkit.SourceError, match=r"head\.head\.0\.weight"):
        Depth(model=str(folder)).extract(drawing((8, 8)))


@pytest.fixture(scope="module")
def hed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ControlNetHED.pth` with random weights whose edges are neither black nor white."""
    path = tmp_path_factory.mktemp("hed") / "ControlNetHED.pth"
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in Network().state_dict().items():
        fan = tensor[0].numel() if tensor.ndim == 4 else 1
        state[name] = (
            torch.randn(tensor.shape, generator=generator) * (2 / fan) ** 0.5 * (0.03 if "proj" in name else 1)
        )
    state["norm"] = torch.tensor([123.0, 117.0, 104.0])[None, :, None, None]
    torch.save(state, path)
    return path


def edges_of(path: Path, picture: Tensor) -> Array:
    """The published network, by plain convolutions and OpenCV's bilinear resizing, in [0, 1]."""
    cv2 = pytest.importorskip("cv2")
    state = torch.load(path, weights_only=True)
    levels = ldmkit.to_levels(picture)
    x = torch.from_numpy(levels).permute(2, 0, 1)[None].float() - state["norm"]
    maps = []
    for block, count in zip(range(1, 6), (2, 2, 3, 3, 3), strict=True):
        x = F.max_pool2d(x, kernel_size=2, stride=2) if block > 1 else x
        for conv in range(count):
            key = f"block{block}.convs.{conv}"
            x = F.relu(F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1))
        key = f"block{block}.projection"
        found = F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"])[0, 0].numpy()
        maps.append(cv2.resize(found, (levels.shape[1], levels.shape[0]), interpolation=cv2.INTER_LINEAR))
    return np.asarray(1 / (1 + np.exp(-np.mean(np.stack(maps, axis=2), axis=2).astype(np.float64))))


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (33, 75), (16, 16)])
def test_hed_is_the_published_network(hed: Path, size: tuple[int, int]) -> None:
    """A level off at most: values are cut off to levels after sums that round otherwise."""
    picture = drawing(size)
    wanted = edges_of(hed, picture)
    assert wanted.std() > 0.02 and 0.05 < wanted.mean() < 0.95
    found = levels_of(Hed(weights=str(hed)), picture)
    assert np.abs(found - (wanted * 255).astype(np.uint8)).max() <= 1
    assert (found != (wanted * 255).astype(np.uint8)).mean() < 0.01
    safe = levels_of(Hed(weights=str(hed), steps=2), picture)
    stepped = (np.minimum((wanted * 3).astype(int), 2) / 2 * 255).astype(np.uint8)
    assert (safe != stepped).mean() < 0.01 and set(np.unique(safe)) <= {0, 127, 255}


def test_hed_reads_safetensors_as_well(hed: Path, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "hed.safetensors", torch.load(hed, weights_only=True))
    one, other = (Hed(weights=str(path)) for path in (hed, tmp_path / "hed.safetensors"))
    assert torch.equal(one.extract(drawing((32, 32))), other.extract(drawing((32, 32))))


def test_hed_keeps_the_contract(hed: Path) -> None:
    check_extractor(Hed, {"weights": str(hed)}).require()


@pytest.mark.parametrize("seed", range(6))
def test_scribbles_are_those_of_opencv(seed: int) -> None:
    """Non-maximum suppression along four lines, blur, threshold, as published; apart in few pixels at the threshold,
    since OpenCV blurs bytes in fixed point."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    soft = cv2.GaussianBlur((rng.random((96, 120)) > 0.985).astype(np.float32), (0, 0), 3 + seed % 3)
    soft = (soft / soft.max() * 400).clip(0, 255).astype(np.uint8)
    x = cv2.GaussianBlur(soft.astype(np.float32), (0, 0), 3.0)
    lines = ("000111000", "010010010", "100010001", "001010100")
    kept = np.zeros_like(x)
    for line in lines:
        kernel = np.array([int(one) for one in line], np.uint8).reshape(3, 3)
        np.putmask(kept, cv2.dilate(x, kernel=kernel) == x, x)
    thin = np.where(kept > 127, np.uint8(255), np.uint8(0))
    wanted = np.where(cv2.GaussianBlur(thin, (0, 0), 3.0) > 4, 255, 0)
    found = scribbled(soft)
    assert 0.02 < (wanted > 0).mean() < 0.9
    assert (found != wanted).mean() < 0.01


def test_hed_that_cannot_be_read(hed: Path, tmp_path: Path) -> None:
    state = torch.load(hed, weights_only=True)
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({key: value for key, value in state.items() if key != "norm"}, tmp_path / "less.pth")
    torch.save({**state, "norm": torch.zeros(1, 4, 1, 1)}, tmp_path / "shape.pth")
    (tmp_path / "text.pth").write_text("no weights")
    cases: list[tuple[Any, str, str]] = [
        (None, "source.no-weights", "ControlNetHED.pth"),
        (str(tmp_path / "nowhere.pth"), "source.no-weights", "nowhere.pth"),
        (str(tmp_path / "more.pth"), "weights.not-hed", "more"),
        (str(tmp_path / "less.pth"), "weights.not-hed", "norm"),
        (str(tmp_path / "shape.pth"), "weights.not-hed", "norm"),
    ]
    for path, code, says in cases:
        with pytest.raises(ldmkit.LdmkitError) as error:
            Hed(weights=path).extract(drawing((16, 16)))
        assert error.value.code == code and says in str(error.value), str(error.value)
    with pytest.raises(ldmkit.SourceError, match=r"text\.pth"):
        Hed(weights=str(tmp_path / "text.pth")).extract(drawing((16, 16)))
