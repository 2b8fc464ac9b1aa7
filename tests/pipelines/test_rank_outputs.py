"""What becomes of videos and vectors: files that lose nothing, frames, sizes, masks, the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_distributions import Distribution
from PIL import Image, ImageSequence
from test_ranks import CLASSES, ENTRY_POINTS, PARTS, pipeline
from typer.testing import CliRunner
from vector_parts import Prior
from video_parts import Causal, Cube

import ldmkit
from ldmkit.cli.app import app
from ldmkit.models.weights import open_safetensors
from ldmkit.run.recipe import read_recipe
from ldmkit.run.written import difference
from ldmkit.testing import check_codec, check_denoiser


@pytest.fixture(scope="module")
def video() -> ldmkit.Pipeline:
    return pipeline("video")


@pytest.fixture(scope="module")
def vector() -> ldmkit.Pipeline:
    return pipeline("vector")


def output(images: torch.Tensor, **more: Any) -> ldmkit.Output:
    return ldmkit.Output(images, torch.zeros(len(images), 1), lambda: ({"n": 1},) * len(images), **more)


def test_every_frame_is_in_the_file_equal_ones_too(tmp_path: Path) -> None:
    levels = torch.randint(0, 256, (1, 3, 1, 6, 7), generator=torch.Generator().manual_seed(0))
    other = torch.randint(0, 256, (1, 3, 1, 6, 7), generator=torch.Generator().manual_seed(1))
    frames = torch.cat([levels, levels, other, other, other, levels], 2)
    [path] = output(frames / 255).save(tmp_path / "a.png", fps=8)
    with Image.open(path) as found:
        assert found.n_frames == 6
        rows = [(np.array(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(found)]
    stored = torch.stack([torch.from_numpy(row) for row, _ in rows]).permute(3, 0, 1, 2)
    assert torch.equal(stored.long(), frames[0]) and {duration for _, duration in rows} == {125.0}
    assert difference(path, frames[0] / 255, visual=True) == 0
    off = frames[0].clone()
    off[0, 3, 2, 2] = (off[0, 3, 2, 2] + 100) % 256
    assert difference(path, off / 255, visual=True) > 50
    with pytest.raises(ldmkit.SourceError, match="other-size"):
        difference(path, frames[0, :, :5] / 255, visual=True)


def test_a_video_of_one_frame_is_a_picture(tmp_path: Path) -> None:
    [path] = output(torch.rand(1, 3, 1, 4, 4)).save(tmp_path / "a.png")
    with Image.open(path) as found:
        assert getattr(found, "n_frames", 1) == 1 and found.size == (4, 4)


def test_frames_and_pictures(video: ldmkit.Pipeline, vector: ldmkit.Pipeline) -> None:
    clips = video(CLASSES, seeds=(0, 1))
    assert [len(frames) for frames in clips.frames()] == [5, 5] and clips.frames()[0][0].size == (6, 8)
    assert len(output(torch.rand(2, 3, 4, 4)).frames()[0]) == 1
    for call in (clips.pil, vector(CLASSES).pil, vector(CLASSES).frames):
        with pytest.raises(ldmkit.InputError, match="not-pictures"):
            call()


def test_vectors_are_written_as_they_are(vector: ldmkit.Pipeline, tmp_path: Path) -> None:
    out = vector(CLASSES, seeds=3)
    [path] = out.save(tmp_path / "a.safetensors")
    assert torch.equal(open_safetensors(path)["values"].read(True), out.images[0])
    assert read_recipe(path)["seed"] == 3
    with pytest.raises(ldmkit.InputError, match="not-safetensors"):
        out.save(tmp_path / "a.png")


def test_a_video_goes_into_no_other_file(video: ldmkit.Pipeline, tmp_path: Path) -> None:
    out = video(CLASSES)
    for name in ("a.gif", "a.safetensors", "a.mp4"):
        with pytest.raises(ldmkit.InputError, match="not-png"):
            out.save(tmp_path / name)
    for fps in (0, -1, float("nan"), "8", True):
        with pytest.raises(ldmkit.InputError, match="fps"):
            out.save(tmp_path / "a.png", fps=fps)
    assert not list(tmp_path.iterdir())


def test_sizes_that_do_not_fit_are_drawn_whole_and_cut(video: ldmkit.Pipeline) -> None:
    with pytest.warns(UserWarning, match=r"4x6x5 does not fit .*frames 1 \+ a multiple of 2.*5x8x6 is drawn"):
        cut = video(CLASSES, size=(4, 6, 5), seeds=2)
    assert torch.equal(cut.images, video(CLASSES, seeds=2).images[:, :, :4, :6, :5])


def test_encoding_pads_each_axis_by_its_last_position(video: ldmkit.Pipeline) -> None:
    given = torch.rand(2, 3, 4, 7, 5) * 2 - 1
    padded = torch.cat([given, given[:, :, -1:]], 2)
    padded = torch.cat([padded, padded[:, :, :, -1:]], 3)
    padded = torch.cat([padded, padded[..., -1:]], 4)
    assert torch.equal(video.encode(given), video.codec.encode(padded))


def test_a_mask_keeps_its_part_of_every_frame(video: ldmkit.Pipeline) -> None:
    before = video(CLASSES, seeds=1)
    mask = torch.zeros(1, 8, 6)
    mask[..., 4:] = 1
    out = video({"label": 2}, seeds=5, start={"image": before, "mask": mask})
    torch.testing.assert_close(out.images[..., :4], before.images[..., :4], rtol=0, atol=1e-6)
    assert (out.images[..., 4:] - before.images[..., 4:]).abs().max() > 0.05


def test_a_mask_over_vectors_is_refused(vector: ldmkit.Pipeline) -> None:
    with pytest.raises(ldmkit.InputError, match="mask-vectors"):
        vector(CLASSES, start={"latents": torch.zeros(6), "mask": torch.zeros(1, 8, 8)})


def test_image_guidance_is_for_pictures(video: ldmkit.Pipeline) -> None:
    image: Any = ldmkit.get("guidance", "image")
    with pytest.raises(ldmkit.InputError, match="guidance-rank"):
        video(CLASSES, guidance=image(target=torch.zeros(1, 3, 8, 6), scale=1.0))


@pytest.mark.parametrize("rank", list(PARTS))
def test_the_command_line(rank: str, distribution: Distribution, tmp_path: Path) -> None:
    distribution("tiny-ranks", ENTRY_POINTS)
    folder, name = pipeline(rank).save(tmp_path / "model"), "a.png" if rank == "video" else "a.safetensors"
    size = ["--size", "3x8x4"] if rank == "video" else []
    drawn = CliRunner().invoke(
        app, ["sample", str(folder), "--label", "1", "--seed", "4", *size, "-o", str(tmp_path / name)]
    )
    assert drawn.exit_code == 0, drawn.output
    wanted = ldmkit.load(folder)({"label": 1}, seeds=4, size=(3, 8, 4) if size else None)
    assert difference(tmp_path / name, wanted.images[0], visual=wanted.visual) == 0
    again = CliRunner().invoke(app, ["replay", str(tmp_path / name), "--trust"])
    assert again.exit_code == 0 and "largest difference: 0" in again.output, again.output
    wrong = "b.safetensors" if rank == "video" else "b.png"
    refused = CliRunner().invoke(app, ["sample", str(folder), "--label", "1", "-o", str(tmp_path / wrong)])
    assert refused.exit_code != 0 and not (tmp_path / wrong).exists()


def test_parts_for_pictures_are_refused_by_name() -> None:
    tiled: Any = ldmkit.get("codec", "tiled")
    with pytest.raises(ldmkit.CompositionError, match="rank-mismatch"):
        tiled.wrap(Causal())
    patched: Any = ldmkit.get("denoiser", "patched")
    with pytest.raises(ldmkit.CompositionError, match="rank-mismatch"):
        patched.wrap(Cube())


class NotCausal(Causal):
    """Says that all its frames are alike."""

    axes = (ldmkit.Axis("frames", 2), ldmkit.Axis("height", 4), ldmkit.Axis("width", 2))


class ForAllFrames(Cube):
    """Adds the mean over the frames' axis of the whole batch."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: Any, sigma: float | None = None) -> torch.Tensor:
        return super().forward(x + x.mean(0, keepdim=True), t, context, sigma)


class Folded(Cube):
    """Gives its frames back in the batch."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: Any, sigma: float | None = None) -> torch.Tensor:
        return super().forward(x, t, context, sigma).transpose(1, 2).flatten(0, 1)


class WithPlane(Prior):
    """Vectors have no rows and columns to lay a plane on."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.slots = {**self.slots, "map": ldmkit.Slot("plane", 2)}


class OfHalfAnAxis(Prior):
    latent_axes = 0.5  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (NotCausal, "shape"),
        (ForAllFrames, "batch-invariance"),
        (Folded, "shape"),
        (WithPlane, "declared"),
        (OfHalfAnAxis, "declared"),
    ],
)
def test_the_kit_catches_parts_that_are_not_what_they_say(cls: Any, name: str) -> None:
    found = check_codec(cls) if issubclass(cls, ldmkit.Codec) else check_denoiser(cls)
    assert name in {one.check.name for one in found.failures}
