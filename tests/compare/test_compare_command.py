"""`ldmkit compare` on a tiny model: figures, files, samplers of others, failures, interrupts."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from ldmkit_compare.asked import parse_samplers
from ldmkit_compare.page import page
from ldmkit_compare.runs import Comparing
from PIL import Image

import ldmkit
from ldmkit.cli import main
from ldmkit.plugins import catalogue

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, kl_pipe: ldmkit.Pipeline) -> Callable[..., Any]:
    """run(samplers, steps): a comparison of the tiny latent model and its pictures."""

    def run(samplers: str, steps: tuple[int, ...] = (2, 4), tight: int = 40) -> Any:
        first = kl_pipe.prepare({"label": 1}, seeds=[3, 4], steps=steps[0], guidance=2.0, grid="karras")
        return Comparing(kl_pipe, first, parse_samplers(samplers), steps, tight).run({"label": "1"})

    return run


def test_errors_fall_with_steps_and_are_above_the_doubt(small: Callable[..., Any]) -> None:
    found, _ = small("euler,heun", (4, 8, 16), 100)
    for name in found.samplers:
        errors = [run.figures.rms for run in found.runs_of(name)]
        assert errors == sorted(errors, reverse=True) and errors[-1] > found.reference.doubt.rms
        assert not found.noisy(name)
    # on an even grid in this frame Heun's two calls a step are worth it at every number of steps
    assert all(
        h.figures.rms < e.figures.rms for h, e in zip(found.runs_of("heun"), found.runs_of("euler"), strict=True)
    )
    assert [run.evaluations for run in found.runs_of("heun")] == [7, 15, 31]
    assert found.reference.evaluations == 200


def test_runs_are_what_the_pipeline_draws(small: Callable[..., Any], kl_pipe: ldmkit.Pipeline) -> None:
    found, pictures = small("dpmpp-2m")
    same = kl_pipe({"label": 1}, seeds=[3, 4], steps=4, guidance=2.0, grid="karras", sampler="dpmpp-2m")
    assert pictures.runs["dpmpp-2m", 4].equal(same.images)
    assert found.seeds == (3, 4) and pictures.reference.shape == same.images.shape


def test_noise_is_noticed_and_marked(small: Callable[..., Any]) -> None:
    found, pictures = small("ddim,ddim:eta=1")
    assert not found.noisy("ddim") and found.noisy("ddim:eta=1")
    rows = [line for line in found.table().splitlines() if line.startswith("ddim")]
    assert [("~" in row) for row in rows] == [False, False, True, True]
    assert "no error" in found.about_noise and found.about_noise in page(found, pictures)


class _Reading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "img":
            self.images.append(str(named["src"]))
        if tag in ("script", "link", "iframe"):
            self.foreign.append(tag)
        self.foreign += [str(v) for k, v in attrs if k in ("src", "href") and not str(v).startswith("data:")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(small: Callable[..., Any]) -> None:
    found, pictures = small("euler,unipc")
    text = page(found.model_copy(update={"model": "<script>"}), pictures)
    reading = _Reading()
    reading.feed(text)
    assert reading.open == [] and reading.foreign == [] and not re.search(r"url\(|@import|https?:", text)
    assert len(reading.images) == 2 * 2 * 3, "two seeds, two samplers, the reference and two numbers of steps each"
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text and "<script>" not in text


def compared(capsys: Capture, folder: Path, *arguments: object) -> tuple[int, str, str]:
    options = ["--model", folder, "--label", 2, "--reference", 10, "-n", 1, "--plan", "eager", *arguments]
    code = main(["compare", *map(str, options)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_writes_two_files(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.html"
    code, said, err = compared(capsys, class_folder, "--samplers", "euler,unipc", "--steps", "2,3", "--out", out)
    assert code == 0, err
    assert said.splitlines()[0] == "30 calls of the network with a batch of 1, 20 of them for the reference"
    assert sum(line.startswith(("euler ", "unipc ")) for line in said.splitlines()) == 4
    assert "label: 2" in out.read_text(encoding="utf-8")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 400
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.png"]


def test_a_folder_and_json(class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    code, said, _ = compared(
        capsys, class_folder, "--samplers", "euler", "--steps", "2", "--out", tmp_path / "new", "--json"
    )
    told = json.loads(said)
    assert code == 0 and Path(told["html"]).is_file() and Path(told["png"]).parent == tmp_path / "new"
    assert told["runs"][0]["figures"]["rms"] > 0 and told["runs"][0]["evaluations"] == 2


@pytest.mark.parametrize(
    ("arguments", "exits", "words"),
    [
        (["--samplers", "eulr"], 4, "euler"),
        (["--samplers", "euler,euler"], 2, "sampler-twice"),
        (["--steps", "0"], 2, "steps-range"),
        (["--steps", "2000"], 2, "steps"),
        (["--out", "a.png"], 2, "compare-out"),
        (["--out", "nowhere/a.html"], 2, "no-folder"),
        (["--guidance", "2", "--set", "label=2"], 2, "option-conflict"),
        (["--text", "a house"], 2, "unknown-option"),
        (["--reference", "9"], 2, "reference"),
    ],
)
def test_bad_input_is_told_before_anything_is_drawn(
    arguments: list[str], exits: int, words: str, class_folder: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ldmkit.Pipeline, "run", lambda *_: pytest.fail("something was drawn"))
    code, _, err = compared(capsys, class_folder, *arguments)
    assert code == exits and words in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


MODULE = """
from itertools import pairwise
import ldmkit

class Mine(ldmkit.Sampler):
    '''Euler's method, or a way to fail.'''
    way: str = "well"
    order = 1

    def steps(self, denoise, x, sigmas, noise):
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            if self.way == "raises":
                raise TypeError("no such thing")
            if self.way == "interrupt":
                raise KeyboardInterrupt
            x0 = denoise(x, sigma)
            x = x0 + (x - x0) * (after / sigma) * (float("nan") if self.way == "nan" else 1)
            yield ldmkit.Step(i, len(sigmas) - 1, sigma, after, x, x0)
"""


@pytest.fixture
def theirs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution `their-samplers` with a sampler called `euler`, beside ours."""
    site = tmp_path_factory.mktemp("site")
    (site / "their_sampler.py").write_text(dedent(MODULE))
    info = site / "their_samplers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-samplers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ldmkit.samplers]\neuler = their_sampler:Mine\nmine = their_sampler:Mine\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    catalogue.refresh()
    yield
    monkeypatch.undo()
    catalogue.refresh()


def test_samplers_of_others(theirs: None, class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = ["--steps", "3", "--out", tmp_path / "a.html", "--json", "--samplers"]
    code, said, _ = compared(capsys, class_folder, *arguments, "ldmkit:euler,their-samplers:euler")
    runs = json.loads(said)["runs"]
    assert code == 0 and [run["sampler"] for run in runs] == ["ldmkit:euler", "their-samplers:euler"]
    # the same method written in another way: equal up to float32's rounding over three steps
    assert runs[0]["figures"]["rms"] == pytest.approx(runs[1]["figures"]["rms"], rel=1e-4)


def test_a_run_that_fails_leaves_the_others(theirs: None, class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.html"
    code, said, _ = compared(
        capsys, class_folder, "--steps", "2", "--samplers", "heun,mine:way=raises,mine:way=nan", "--out", out
    )
    assert code == 5 and out.is_file()
    failed = "mine:way=raises, 2 steps, failed: sampler 'euler' of their-samplers 1.0 failed: TypeError: no such thing"
    assert failed in said and "mine:way=nan, 2 steps" in said
    assert re.search(r"^heun +2 +3 +<?0\.\d+", said, re.M)


def test_an_interrupt_leaves_nothing(theirs: None, class_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    code, _, err = compared(
        capsys, class_folder, "--steps", "2", "--samplers", "heun,mine:way=interrupt", "--out", tmp_path / "a.html"
    )
    assert code == 130 and "interrupted" in err and list(tmp_path.iterdir()) == []
