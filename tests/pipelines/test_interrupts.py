"""Ctrl-C and other signals end a run between two calls of the network, and leave everything fit for the next run.

Signals are raised by the process itself, in a call of the network that is counted: no clock decides.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_parts
import torch
from PIL import Image

import ldmkit
from ldmkit.cli import main
from ldmkit.contracts.step import Network

L = {"label": 1}


class Stopped(Exception):
    """What a handler of the caller's own raises."""


class Interrupting:
    """A network that raises a signal in its call number `at`, counted from 0."""

    def __init__(self, network: Network, at: int, number: signal.Signals = signal.SIGINT) -> None:
        self.network, self.at, self.number, self.calls = network, at, number, 0

    def __call__(self, *given: Any) -> Any:
        self.calls += 1
        out = self.network(*given)
        if self.calls == self.at + 1:
            signal.raise_signal(self.number)
        return out


def plain() -> ldmkit.Pipeline:
    return tiny_parts.class_pipeline("kl")


def prepacked() -> ldmkit.Pipeline:
    try:
        return plain().planned("prepacked")
    except ldmkit.CompositionError as absent:
        pytest.skip(str(absent))


def calling(pipe: ldmkit.Pipeline, network: Any) -> ldmkit.Pipeline:
    """One on the same parts that calls this network."""
    return ldmkit.Pipeline(pipe.parts, pipe.wiring, pipe.defaults, network=network)


def exported() -> ldmkit.Pipeline:
    """Its calls are compiled for every set of shapes; here the compiler hands out the network as it is."""
    from ldmkit_denoisers.exported import ExportedUNet, _Flat

    class Uncompiled(ExportedUNet):
        def _compile(self, inputs: tuple[Any, ...]) -> Any:
            return _Flat(self._unet)

    pipe = plain()
    return calling(pipe, Uncompiled(pipe.denoiser))


def tiled() -> ldmkit.Pipeline:
    pipe = plain()
    codec = ldmkit.get("codec", "tiled").wrap(pipe.codec, budget_mib=0.05)
    return ldmkit.Pipeline.of(
        codec=codec, denoiser=pipe.denoiser, process=pipe.process, conditioners=pipe.conditioners,
        defaults={"size": (64, 64), "steps": 3},
    )  # fmt: skip


def patched() -> ldmkit.Pipeline:
    pipe = plain()
    denoiser = ldmkit.get("denoiser", "patched").wrap(pipe.denoiser, kernel=4, stride=2)
    return ldmkit.Pipeline.of(
        codec=pipe.codec, denoiser=denoiser, process=pipe.process, conditioners=pipe.conditioners,
        defaults={"size": (24, 24), "steps": 3},
    )  # fmt: skip


def controlled() -> ldmkit.Pipeline:
    pipe = plain()
    config = {"unet": pipe.denoiser.config.model_dump(), "hint_channels": 3, "hint_widths": (4, 4, 4)}
    adapter = tiny_parts.part("adapter", "controlnet", config, seed=7)
    return pipe.with_adapter("hint", adapter, {"hint": ldmkit.get("conditioner", "hint")({})})


MODELS: dict[str, tuple[Callable[[], ldmkit.Pipeline], dict[str, Any], dict[str, Any]]] = {
    "eager": (plain, {}, {}),
    "prepacked": (prepacked, {}, {}),
    "exported": (exported, {}, {}),
    "tiled": (tiled, {}, {}),
    "patched": (patched, {}, {}),
    "controlnet": (controlled, {"hint": np.full((16, 16, 3), 99, np.uint8)}, {}),
    "guided": (plain, {}, {"guidance": {"label": 3.0}, "negative": {"label": 2}}),
    "several calls a step": (plain, {}, {"sampler": "heun"}),
    "with noise": (plain, {}, {"sampler": "euler-ancestral", "seeds": [3, 4]}),
    "masked": (plain, {}, {"start": {"image": np.zeros((16, 16, 3), np.uint8), "mask": np.eye(16, dtype=bool)}}),
}


def interrupted(pipe: ldmkit.Pipeline, at: int, inputs: dict[str, Any], options: dict[str, Any]) -> int:
    """Calls of the network until the run ended by a signal in call number `at`."""
    breaking = Interrupting(pipe.network or pipe.denoiser, at)
    with pytest.raises(KeyboardInterrupt):
        calling(pipe, breaking)(inputs, **options)
    return breaking.calls


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_a_run(name: str, at: int) -> None:
    make, more, options = MODELS[name]
    pipe, inputs = make(), {**L, **more}
    wanted = pipe(inputs, **options).images
    assert interrupted(pipe, at, inputs, options) == at + 1  # no call after the signal
    assert torch.equal(pipe(inputs, **options).images, wanted)
    assert pipe.to(torch.float64).denoiser.dtype == torch.float64  # nobody holds the parts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_handler_of_the_callers(number: signal.Signals) -> None:
    def handle(*_: object) -> None:
        raise Stopped

    pipe = plain()
    wanted, before = pipe(L).images, signal.signal(number, handle)
    try:
        breaking = Interrupting(pipe.denoiser, 1, number)
        with pytest.raises(Stopped):
            calling(pipe, breaking)(L)
        assert breaking.calls == 2
    finally:
        signal.signal(number, before)
    assert torch.equal(pipe(L).images, wanted)
    pipe.to(torch.float64)


def test_while_a_plan_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was half compiled is not kept, and the plan's lock is free again."""
    pipe = exported()
    plan: Any = pipe.network
    real = type(plan)._compile

    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(type(plan), "_compile", stop)
    with pytest.raises(KeyboardInterrupt):
        pipe(L)
    assert plan._packages == {} and not plan._lock.locked()
    monkeypatch.setattr(type(plan), "_compile", real)
    assert torch.equal(pipe(L).images, plain()(L).images)


def layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]


@pytest.mark.parametrize("name", ["eager", "tiled"])
@pytest.mark.parametrize("direction", ["encode", "decode"])
@pytest.mark.parametrize("at", [0, 3])
def test_in_the_middle_of_a_codec(name: str, direction: str, at: int) -> None:
    pipe = MODELS[name][0]()
    given = torch.zeros(1, 3, 64, 64) if direction == "encode" else torch.randn(1, 2, 16, 16)
    wanted, count = getattr(pipe, direction)(given), 0

    def stop(*_: object) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            signal.raise_signal(signal.SIGINT)

    hooks = [layer.register_forward_hook(stop) for layer in layers(pipe.codec)]
    with pytest.raises(KeyboardInterrupt):
        getattr(pipe, direction)(given)
    for hook in hooks:
        hook.remove()
    assert count == at + 1
    assert torch.equal(getattr(pipe, direction)(given), wanted)
    pipe.to(torch.float64)


def test_in_a_callback_and_in_a_stream() -> None:
    pipe = plain()
    wanted = pipe(L).images
    with pytest.raises(KeyboardInterrupt):
        pipe(L, on_step=lambda step: signal.raise_signal(signal.SIGINT))
    stream = pipe.stream(L)
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert torch.equal(pipe(L).images, wanted)
    pipe.to(torch.float64)


@pytest.mark.parametrize("what", ["the network", "writing"])
def test_the_command_line(
    what: str, class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ldmkit_denoisers.unet import UNet

    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    if what == "the network":
        monkeypatch.setattr(UNet, "forward", stop)
    else:
        written = Image.Image.save

        def half(self: Image.Image, file: Any, *given: Any, **options: Any) -> None:
            written(self, file, *given, **options)
            stop()

        monkeypatch.setattr(Image.Image, "save", half)
    out = tmp_path / "out" / "a.png"
    out.parent.mkdir()
    assert main(["sample", str(class_folder), "--label", "1", "--steps", "2", "--out", str(out)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []
    monkeypatch.undo()
    assert main(["sample", str(class_folder), "--label", "1", "--steps", "2", "--out", str(out)]) == 0
