"""What a plugin's own code raises reaches the caller with the plugin's name, and with the exception as its cause."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ldmkit
from ldmkit.cli import RUN, main
from ldmkit.errors import RunError

POINTS = """
    [ldmkit.samplers]
    frail = frail_parts:Frail

    [ldmkit.guidance]
    frail-guidance = frail_parts:FrailGuidance

    [ldmkit.codecs]
    frail-codec = frail_parts:FrailCodec

    [ldmkit.denoisers]
    frail-denoiser = frail_parts:FrailDenoiser

    [ldmkit.conditioners]
    frail-label = frail_parts:FrailLabel
"""
PARTS = """
    import ldmkit
    import torch

    def table():
        return {}["no such key"]

    class Frail(ldmkit.get("sampler", "euler")):
        '''Fails after a step.'''

        api = 1

        def steps(self, denoise, x, sigmas, noise):
            for step in super().steps(denoise, x, sigmas, noise):
                yield step
                table()

    class FrailGuidance(ldmkit.get("guidance", "cfg")):
        '''Fails, by its own helper.'''

        api = 1

        def __call__(self, evaluate, x, sigma):
            return table()

    class FrailCodec(ldmkit.get("codec", "identity")):
        '''Cannot decode.'''

        api = 1

        def decode(self, latents):
            return table()

    class FrailDenoiser(ldmkit.get("denoiser", "unet")):
        '''Fails inside a run.'''

        api = 1

        def forward(self, x, time, context, sigma=None):
            return table()

    class FrailLabel(ldmkit.get("conditioner", "label")):
        '''Cannot encode.'''

        api = 1

        def forward(self, values):
            return table()
"""


@pytest.fixture
def frail(install: Callable[..., Path], class_pipe: ldmkit.Pipeline) -> Callable[..., ldmkit.Pipeline]:
    """The class-conditional pipeline, with parts of `kind` from a plugin."""
    install("frail", POINTS, {"frail_parts": PARTS}, version="2.1")

    def made(**kinds: str) -> ldmkit.Pipeline:
        parts: dict[str, Any] = {"codec": class_pipe.codec, "denoiser": class_pipe.denoiser}
        parts |= {kind: ldmkit.get(kind, name)(parts[kind].config) for kind, name in kinds.items() if kind in parts}
        label = class_pipe.conditioners["label"]
        if "conditioner" in kinds:
            label = ldmkit.get("conditioner", kinds["conditioner"])(label.config)
        return ldmkit.Pipeline.of(
            **parts, process=class_pipe.process, conditioners={"label": label}, defaults=class_pipe.defaults
        )

    return made


def check(error: RunError, kind: str, name: str) -> None:
    assert error.code == "run.plugin-failed" and error.where == f"{kind}:frail:{name}"
    assert f"{kind} {name!r} of frail 2.1 failed: KeyError: 'no such key'" in error.what
    assert isinstance(error.__cause__, KeyError)
    frames = [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)]
    assert frames[-1] == "table"


CASES: list[tuple[str, str, dict[str, str], dict[str, Any]]] = [
    ("sampler", "frail", {}, {"sampler": "frail"}),
    ("guidance", "frail-guidance", {}, {"guidance": {"type": "frail-guidance", "config": {"scale": 2.0}}}),
    ("codec", "frail-codec", {"codec": "frail-codec"}, {}),
    ("denoiser", "frail-denoiser", {"denoiser": "frail-denoiser"}, {}),
    ("conditioner", "frail-label", {"conditioner": "frail-label"}, {}),
]


@pytest.mark.parametrize(("kind", "name", "parts", "options"), CASES, ids=[case[0] for case in CASES])
def test_a_run_names_the_plugin(
    frail: Callable[..., ldmkit.Pipeline], kind: str, name: str, parts: dict[str, str], options: dict[str, Any]
) -> None:
    pipe = frail(**parts)
    with pytest.raises(RunError) as raised:
        pipe({"label": 1}, steps=2, **options)
    check(raised.value, kind, name)


def test_a_stream_names_the_plugin(frail: Callable[..., ldmkit.Pipeline]) -> None:
    stream = frail().stream({"label": 1}, steps=2, sampler="frail")
    next(stream)
    with pytest.raises(RunError) as raised:
        next(stream)
    check(raised.value, "sampler", "frail")


def test_the_command_line_shows_the_plugins_traceback_and_one_line(
    frail: Callable[..., ldmkit.Pipeline], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = frail().save(tmp_path / "model")
    said = [
        "sample",
        str(folder),
        "--label",
        "1",
        "--steps",
        "2",
        "--sampler",
        "frail",
        "--out",
        str(tmp_path / "a.png"),
    ]
    assert main(said) == RUN
    printed = capsys.readouterr().err
    assert "in table" in printed and "KeyError: 'no such key'" in printed
    assert (
        printed.rstrip().splitlines()[-1].startswith("error [run.plugin-failed] sampler:frail:frail: sampler 'frail'")
    )
    assert not (tmp_path / "a.png").exists()


def test_training_names_the_plugin(
    install: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In mid-run, with a checkpoint of the steps before it."""
    install("frail", POINTS, {"frail_parts": TRAINED}, version="2.1")
    unet = {"channels": 3, "widths": [8], "blocks": 1, "norm_groups": 4, "heads": 2, "attention": ["none"]}
    world = {"type": "miniworld", "config": {"split": "train", "count": 8, "size": 32}}
    model = {
        "codec": {"type": "identity"}, "process": {"type": "discrete"}, "defaults": {"size": [16, 16], "steps": 2},
        "denoiser": {"type": "frail-denoiser", "config": unet}, "conditioners": {},
    }  # fmt: skip
    recipe = {
        "stage": "denoiser", "out": str(tmp_path / "out"), "seed": 0, "steps": 6, "model": model,
        "precision": "float32",
        "data": {"train": world, "size": [16, 16], "batch": 2}, "optimiser": {"lr": 1e-3}, "probe": None,
        "previews": None, "tracking": {"to": [], "every": 1}, "checkpoints": {"every": 100},
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert main(["train", str(path)]) == RUN
    printed = capsys.readouterr().err
    assert "in table" in printed and "denoiser 'frail-denoiser' of frail 2.1 failed: KeyError" in printed
    assert "steps before it are saved in" in printed.splitlines()[-1]


TRAINED = PARTS.replace(
    "            return table()\n\n    class FrailLabel", "            FrailDenoiser.calls += 1\n"
    "            return table() if FrailDenoiser.calls > 5 else super().forward(x, time, context, sigma)\n\n"
    "        calls = 0\n\n    class FrailLabel",
)  # fmt: skip


def test_what_is_no_plugins_fault_passes_as_it_is(
    frail: Callable[..., ldmkit.Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback's exception, errors of ours, and the parts that come with ldmkit."""
    pipe = frail()

    def on_step(_: ldmkit.Step) -> None:
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        pipe({"label": 1}, steps=2, on_step=on_step)
    with pytest.raises(ldmkit.errors.InputError, match="unknown-argument"):
        pipe.prepare({"label": 1}, step=2)

    def broken(*_: object) -> torch.Tensor:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(type(pipe.codec), "decode", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        pipe({"label": 1}, steps=2)
