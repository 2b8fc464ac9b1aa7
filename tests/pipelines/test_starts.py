"""Starts: pictures, latents and outputs, one for all of a batch or one a picture, each with its mask, and replayed.

A batch of N starts is N runs by themselves. Its states before the first step are those of the runs, bit for bit: each
picture is encoded by itself, and noise is a function of its seed. What convolutions make of a batch may differ in the
last bits from what they make of one: 1e-5 of values in [0, 1] after four steps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_parts
import torch
from PIL import Image
from torch import Tensor

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import InputError
from ldmkit.replaying import replay

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    """Factor 4, pictures of 16x16."""
    return tiny_parts.class_pipeline("kl")


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def tensor(seed: int) -> Tensor:
    return torch.from_numpy(picture(seed)).permute(2, 0, 1).float() / 127.5 - 1


def mask(seed: int) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).random((16, 16)) < 0.5).astype(np.uint8) * 255


L = {"label": 1}
IMAGES = [picture(seed) for seed in range(3)]
FORMS = {
    "a list of starts": lambda: [ldmkit.Start(image=image, strength=0.5) for image in IMAGES],
    "a list of mappings": lambda: [{"image": image, "strength": 0.5} for image in IMAGES],
    "a list of pictures": lambda: {"image": IMAGES, "strength": 0.5},
    "PIL": lambda: {"image": [Image.fromarray(image) for image in IMAGES], "strength": 0.5},
    "a tensor": lambda: {"image": torch.stack([tensor(seed) for seed in range(3)]), "strength": 0.5},
    "an array": lambda: {"image": np.stack(IMAGES), "strength": 0.5},
    "numbers of numpy": lambda: {"image": IMAGES, "strength": np.float32(0.5)},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_starts_is_as_many_runs(pipe: ldmkit.Pipeline, form: str) -> None:
    start, seeds = FORMS[form](), [7, 8, 9]
    together = pipe.prepare(L, start=start, seeds=seeds, guidance=2.0)
    alone = [
        pipe.prepare(L, start={"image": image, "strength": 0.5}, seeds=[seed], guidance=2.0)
        for image, seed in zip(IMAGES, seeds, strict=True)
    ]
    for i, one in enumerate(alone):
        assert torch.equal(together.x[i], one.x[0])
    out = pipe.run(together)
    for i, one in enumerate(alone):
        torch.testing.assert_close(out.images[i], pipe.run(one).images[0], rtol=0, atol=TOLERANCE)
        again = replay(pipe, json.loads(json.dumps(out.recipes[i])))
        torch.testing.assert_close(again.images[0], out.images[i], rtol=0, atol=TOLERANCE)
    assert not torch.equal(out.images[0], out.images[1])


def test_a_picture_stands_for_itself(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    want = pipe(L, start={"image": IMAGES[0]}).images
    for start in (IMAGES[0], Image.fromarray(IMAGES[0]), tmp_path / "a.png", str(tmp_path / "a.png"), tensor(0)[None]):
        assert torch.equal(pipe(L, start=start).images, want)


def test_one_seed_and_one_input_serve_all_starts(pipe: ldmkit.Pipeline) -> None:
    out = pipe(L, start=IMAGES, seeds=3)
    assert [recipe["seed"] for recipe in out.recipes] == [3, 3, 3]
    assert not torch.equal(out.images[0], out.images[1])


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
def test_latents_are_what_encoding_makes(pipe: ldmkit.Pipeline, sampler: str) -> None:
    latents = torch.cat([pipe.encode(image) for image in IMAGES])
    options: dict[str, Any] = {"seeds": [1, 2, 3], "sampler": sampler}
    want = pipe(L, start={"image": IMAGES}, **options)
    for given in (latents, list(latents), latents.numpy(), latents.double()):
        out = pipe(L, start={"latents": given}, **options)
        assert torch.equal(out.images, want.images)
    one = pipe(L, start=ldmkit.Start(latents=latents[1]), seeds=[2], sampler=sampler)
    torch.testing.assert_close(one.images[0], want.images[1], rtol=0, atol=TOLERANCE)
    stored = json.loads(json.dumps(one.recipes[0]))
    assert stored["start"]["latents"].startswith("data:") and "image" not in stored["start"]
    assert torch.equal(replay(pipe, stored).images, one.images)


def test_an_output_goes_on_from_its_latents(pipe: ldmkit.Pipeline) -> None:
    first = pipe(L, seeds=[1, 2])
    out = pipe(L, start=first, seeds=[3, 4])
    want = pipe(L, start={"latents": first.latents}, seeds=[3, 4])
    assert torch.equal(out.images, want.images)
    weaker = pipe(L, start={"image": first, "strength": 0.5}, seeds=[3, 4])
    assert torch.equal(weaker.images, pipe(L, start={"latents": first.latents, "strength": 0.5}, seeds=[3, 4]).images)
    chained = pipe(L, start=[first, first], seeds=range(4))
    assert len(chained.images) == 4


def test_an_output_of_a_padded_size(pipe: ldmkit.Pipeline, recwarn: pytest.WarningsRecorder) -> None:
    first = pipe(L, size=(14, 19))
    out = pipe(L, start=first)
    assert out.images.shape[-2:] == (14, 19)
    assert torch.equal(replay(pipe, json.loads(json.dumps(out.recipes[0]))).images, out.images)


def test_an_output_of_another_codec_goes_by_its_picture_in_floats(pipe: ldmkit.Pipeline) -> None:
    """Latents of another codec may have these shapes and mean something else."""
    other = tiny_parts.class_pipeline("kl")
    assert other.codec is not pipe.codec
    first = other(L)
    out = pipe(L, start=first)
    assert torch.equal(out.images, pipe(L, start={"image": first.images[0] * 2 - 1}).images)
    pixels = tiny_parts.class_pipeline()
    assert pixels(L, start={"image": first}).images.shape == (1, 3, 16, 16)


def test_an_inpainted_output_is_more_than_its_latents(pipe: ldmkit.Pipeline) -> None:
    first = pipe(L, start={"image": IMAGES[0], "mask": mask(0)})
    assert first.codec is None
    out = pipe(L, start=first)
    assert torch.equal(out.images, pipe(L, start={"image": first.images[0] * 2 - 1}).images)


def test_a_mask_keeps_an_output_exactly(pipe: ldmkit.Pipeline) -> None:
    first = pipe(L)
    out = pipe({"label": 2}, start={"image": first, "mask": mask(1)}, seeds=[9])
    kept = torch.from_numpy(mask(1) == 0)
    torch.testing.assert_close(out.images[0][:, kept], first.images[0][:, kept], rtol=0, atol=1e-7)


def test_masks_by_row(pipe: ldmkit.Pipeline) -> None:
    masks = [mask(0), None, mask(2)]
    start = [{"image": image, "mask": one} for image, one in zip(IMAGES, masks, strict=True)]
    out = pipe(L, start=start, seeds=[1, 2, 3])
    for i, one in enumerate(masks):
        alone = pipe(L, start={"image": IMAGES[i], "mask": one}, seeds=[i + 1])
        torch.testing.assert_close(out.images[i], alone.images[0], rtol=0, atol=TOLERANCE)
        if one is not None:
            assert np.array_equal(np.asarray(out.pil()[i])[one == 0], IMAGES[i][one == 0])
    several = pipe(L, start={"image": IMAGES[0], "mask": [mask(0), mask(2)]}, seeds=[1, 1])
    assert np.array_equal(np.asarray(several.pil()[1])[mask(2) == 0], IMAGES[0][mask(2) == 0])


def test_a_mask_over_latents_keeps_what_they_decode_to(pipe: ldmkit.Pipeline) -> None:
    latents = pipe.encode(IMAGES[0])
    out = pipe({"label": 2}, start={"latents": latents, "mask": mask(1)}, seeds=[5])
    kept = torch.from_numpy(mask(1) == 0)
    torch.testing.assert_close(out.images[0][:, kept], pipe.decode(latents)[0][:, kept], rtol=0, atol=1e-6)


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "too few": ([IMAGES[0]] * 2, {"seeds": [1, 2, 3]}, "2 starts for 3 pictures"),
    "too many": ([IMAGES[0]] * 3, {"seeds": [1, 2]}, "3 starts for 2 pictures"),
    "none": ([], {}, "empty"),
    "no images": ({"image": []}, {}, "empty"),
    "sizes differ": ([IMAGES[0], picture(1, (16, 20))], {}, "16x16, 16x20"),
    "another size asked for": (IMAGES[0], {"size": 32}, "size is 32x32, start.image is 16x16"),
    "strengths differ": ([{"image": IMAGES[0], "strength": s} for s in (0.5, 0.6)], {}, "strengths 0.5 and 0.6"),
    "a list of strengths": ({"image": IMAGES, "strength": [0.5, 0.6, 0.7]}, {}, "share the noise levels"),
    "masks do not pair up": ({"image": IMAGES, "mask": [mask(0)] * 2}, {}, "2 masks for 3 pictures"),
    "a mask of another size": ([{"image": IMAGES[0], "mask": np.zeros((8, 8), bool)}], {}, "the mask is 8x8"),
    "both": ({"image": IMAGES[0], "latents": torch.zeros(2, 4, 4)}, {}, "a picture and latents"),
    "neither": ({"strength": 0.5}, {}, "neither a picture nor latents"),
    "latents as a picture": (torch.zeros(1, 2, 4, 4), {}, '"latents": tensor'),
    "latents of other channels": ({"latents": torch.zeros(4, 4, 4)}, {}, r"fit.*\[2, 4, 4\]|\[2, 4, 4\]"),
    "latents of another size": ({"latents": torch.zeros(2, 4, 4)}, {"size": 32}, "16x16"),
    "latents not finite": ({"latents": torch.full((2, 4, 4), torch.nan)}, {}, "NaN"),
    "latents of integers": ({"latents": torch.zeros(2, 4, 4, dtype=torch.int64)}, {}, "latent"),
    "latents of a text": ({"latents": "a.pt"}, {}, "latent-type"),
    "latents without numbers": ({"latents": torch.zeros(2, 4, 4, device="meta")}, {}, "meta"),
    "the second is no picture": ([IMAGES[0], 5], {}, r"start\[1\]"),
    "a misspelt field": ([{"image": IMAGES[0], "strenght": 0.5}], {}, "strength"),
    "two axes": (torch.zeros(3, 4), {}, "picture-shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_started_from(pipe: ldmkit.Pipeline, name: str) -> None:
    start, options, said = BAD[name]
    with pytest.raises(InputError, match=said):
        pipe(L, start=start, **options)


def test_a_run_that_starts_from_a_picture_is_not_prepared_again(pipe: ldmkit.Pipeline) -> None:
    """Without a mask too: the picture would be gone without a word."""
    run = pipe.prepare(L, start=IMAGES[0])
    with pytest.raises(ValueError, match="starts from a picture"):
        run.again(sampler=run.request.sampler, grid=run.request.grid, steps=4)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], pipe: ldmkit.Pipeline) -> None:
    folder = pipe.save(tmp_path / "model")
    for i, image in enumerate(IMAGES[:2]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    Image.fromarray(mask(3)).save(tmp_path / "mask.png")
    starts = [word for i in range(2) for word in ("--start", str(tmp_path / f"{i}.png"))]
    out = tmp_path / "out.png"
    call = ["sample", str(folder), "--label", "1", "--seed", "4", "--out", str(out), "--strength", "0.5"]
    assert main([*call, *starts, "--mask", str(tmp_path / "mask.png")]) == 0
    want = pipe(L, start=[{"image": i, "mask": mask(3), "strength": 0.5} for i in IMAGES[:2]], seeds=[4, 5]).pil()
    for i, picture in enumerate(want):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"out-{i}.png")), np.asarray(picture))
    assert main(["replay", str(tmp_path / "out-1.png"), "--model", str(folder)]) == 0
    assert "largest difference: 0" in capsys.readouterr().out
    latents = tmp_path / "l.safetensors"
    assert main(["encode", str(folder), str(tmp_path / "0.png"), "--out", str(latents)]) == 0
    assert main([*call, "--start", str(latents)]) == 0
    one = pipe(L, start={"image": IMAGES[0], "strength": 0.5}, seeds=[4]).pil()[0]
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(one))
    assert main([*call, *starts, "-n", "3"]) == 2 and "2 starts for 3" in capsys.readouterr().err
    assert main([*call, *starts, *starts[:2], *["--mask", str(tmp_path / "mask.png")] * 2]) == 2
    assert "2 masks for 3" in capsys.readouterr().err
