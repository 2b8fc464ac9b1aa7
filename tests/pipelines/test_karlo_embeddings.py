"""What a decoder is given in the place of a prior's result: pictures, files, numbers, and what lies between two."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import karlo_models as karlo
import numpy as np
import pytest
import torch
from ldmkit_conditioners.picture_embedding import PictureEmbedding, slerp
from PIL import Image
from torch import Tensor

import ldmkit
from ldmkit.cli import main

CALL: dict[str, Any] = {"seeds": [7], "stages": {"decoder": {"steps": 2}, "enlarged": {"steps": 2}}}
SAID = ["--seed", "7", "--stage", "decoder.steps=2", "--stage", "enlarged.steps=2"]


def normal(seed: int) -> Tensor:
    return torch.randn(karlo.DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("karlo")
    for name, make in {"texts": karlo.texts, "variations": karlo.variations}.items():
        make().save_pretrained(base / name)
    return {name: base / name for name in ("texts", "variations")}


def test_spherical_interpolation_stays_on_the_sphere() -> None:
    first, second = (one / one.norm() for one in (normal(1), normal(2)))
    angle = math.acos(float(first @ second))
    for share in (0.0, 0.3, 1.0):
        made = slerp(first, second, share)
        assert abs(float(made.norm()) - 1) < 1e-6
        assert abs(math.acos(min(1.0, float(first @ made))) - share * angle) < 1e-3
    assert torch.allclose(slerp(first, 3 * second, 1.0), 3 * second) and torch.equal(slerp(first, first, 0.4), first)
    for other in (-first, torch.zeros_like(first)):
        with pytest.raises(ldmkit.InputError) as caught:
            slerp(first, other, 0.5)
        assert caught.value.code == "input.slerp"


def test_between_two_pictures(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shares of 0 and 1 are the pictures themselves; Python and the command line draw the same."""
    cascade = ldmkit.Cascade.load(folders["variations"])
    paths = [str(tmp_path / f"{name}.png") for name in "ab"]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(path)
    ends = [cascade({"image": path}, **CALL).images for path in paths]
    drawn = [cascade({"image": {"between": paths, "share": share}}, **CALL) for share in (0.0, 0.5, 1.0)]
    for end, out in zip(ends, (drawn[0], drawn[2]), strict=True):
        assert (end - out.images).abs().max() < 1e-3
    encoder = cascade.stages["decoder"].conditioners["image"]
    assert isinstance(encoder, PictureEmbedding)
    with torch.no_grad():
        rows = encoder([encoder.parse(path, "image") for path in paths]).value
    middle = cascade({"image": slerp(rows[0], rows[1], 0.5)}, **CALL)
    assert (middle.images - drawn[1].images).abs().max() < 1e-3
    assert ldmkit.replay(cascade, drawn[1].recipes[0]).images.equal(drawn[1].images)
    out = tmp_path / "c.png"
    given = ["--image", json.dumps({"between": paths, "share": 0.5}), *SAID]
    assert main(["sample", str(folders["variations"]), *given, "-o", str(out)]) == 0
    levels = torch.from_numpy(np.asarray(Image.open(out)).astype(np.float32) / 255).permute(2, 0, 1)
    assert (levels - drawn[1].images[0]).abs().max() <= 0.5 / 255 + 1e-3
    capsys.readouterr()


def test_between_two_texts(folders: dict[str, Path], tmp_path: Path) -> None:
    """Embeddings of two texts from the same noise, saved and given back as files."""
    cascade = ldmkit.Cascade.load(folders["texts"])
    call: dict[str, Any] = {"seeds": [7], "last": "prior", "stages": {"prior": {"steps": 3}}}
    found = [cascade({"text": text}, **call) for text in ("a cat", "the dog")]
    paths = [str(out.save(tmp_path / f"{i}.safetensors")[0]) for i, out in enumerate(found)]
    made = cascade({"image": {"between": paths, "share": 0.25}, "text": ""}, first="decoder", **CALL)
    rows = [out.images[0] for out in found]
    assert not torch.equal(rows[0], rows[1])
    again = cascade({"image": slerp(*rows, 0.25), "text": ""}, first="decoder", **CALL)
    assert torch.equal(made.images, again.images)


def test_without_a_prior(folders: dict[str, Path]) -> None:
    """The text's embedding in the place of the picture's, or none: its learned null."""
    cascade = ldmkit.Cascade.load(folders["texts"])
    decoder = cascade.stages["decoder"]
    with torch.no_grad():
        pooled = decoder.conditioners["pooled"](["a cat"]).value[0]
    made = cascade({"text": "a cat", "image": 3 * pooled / pooled.norm()}, first="decoder", **CALL)
    null = decoder.conditioners["image"].empty
    none = decoder({"text": "a cat"}, seeds=[1], steps=2)
    said = decoder({"text": "a cat", "image": null.detach()}, seeds=[1], steps=2)
    assert torch.equal(none.images, said.images) and made.images.shape == (1, 3, 32, 32)


def test_the_best_of_several(folders: dict[str, Path]) -> None:
    """As in the paper: the embedding whose dot product with the text's is largest."""
    cascade = ldmkit.Cascade.load(folders["texts"])
    prior = cascade.stages["prior"]
    found = prior({"text": "a cat"}, seeds=range(4), steps=3).images
    with torch.no_grad():
        text = prior.conditioners["pooled"](["a cat"]).value[0]
    scores = found @ text
    assert scores.shape == (4,) and scores.max() > scores.min()


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (torch.ones(31), "input.signal-shape"),
        (torch.ones(2, karlo.DIM), "input."),
        (torch.full((karlo.DIM,), 1e-3), "input.embedding-norm"),
        (torch.full((karlo.DIM,), 1e3), "input.embedding-norm"),
        (torch.full((karlo.DIM,), float("nan")), "input.signal-finite"),
        ({"between": [torch.ones(karlo.DIM), torch.ones(31)]}, "input.signal-shape"),
        ({"between": [torch.ones(karlo.DIM), -torch.ones(karlo.DIM)]}, "input.slerp"),
        ({"between": [torch.ones(karlo.DIM)] * 2, "share": 1.5}, "input."),
        ({"embedding": torch.ones(karlo.DIM), "share": 0.5}, "input.signal-type"),
        ("missing.safetensors", "input.no-embedding"),
        (np.zeros((8, 8, 3), np.uint8), "input.signal-type"),
    ],
)
def test_what_is_no_embedding_of_the_model(given: Any, code: str, folders: dict[str, Path]) -> None:
    decoder = ldmkit.Cascade.load(folders["texts"]).stages["decoder"]
    with pytest.raises(ldmkit.InputError) as caught:
        decoder({"image": given}, seeds=[1], steps=1)
    assert caught.value.code.startswith(code)
