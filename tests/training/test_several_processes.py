"""Two processes make of the same global batches the same run as one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from ldmkit.errors import InputError, LdmkitError

SPAWN = multiprocessing.get_context("forkserver")
STAGES = ("ldmkit_training.stages.codec.stage", "ldmkit_training.stages.denoiser.stage")
SPAWN.set_forkserver_preload(
    ["torch._dynamo", "ldmkit_training.loop.engine", *STAGES, "ldmkit_miniworld.data", "accelerate.tracking"]
)

STEPS = 6
RELATIVE = 2e-5
"""Of losses and gradient norms after up to six steps: sums over two halves of a batch are rounded (float32, 6e-8) in
another order, and Adam divides by the root of tiny second moments."""


def child(rank: int, world: int, port: int, kind: str, out: Path, overrides: tuple[str, ...], stop_at: int) -> None:
    """One process of a run; its second one asks to stop after a step, if `stop_at` is not 0."""
    torch.set_num_threads(1)
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    from ldmkit_training.loop.engine import Engine

    make = tiny.codec_recipe if kind == "codec" else tiny.denoiser_recipe
    engine = Engine(make(out, f"steps={STEPS}", *overrides), Path())
    assert engine.accelerator.num_processes == world
    parted = {hasattr(p, "full_tensor") for turn in engine.stage.turns.values() for p in turn.parameters()}
    assert parted == {"sharded=true" in overrides}
    plain = engine.steps.run

    def run(step: int, parts: list) -> None:
        plain(step, parts)
        if rank == 1 and step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    engine.steps.run = run
    outcome = engine.run()
    if not stop_at:  # the progress bar shows the mean over this process's rows
        shown = engine.steps.loss.clone()
        torch.distributed.all_reduce(shown)
        logged = [line["loss"] for line in figures(out) if "loss" in line]
        assert float(shown) / world == pytest.approx(logged[-1], rel=RELATIVE)
    torch.distributed.destroy_process_group()
    raise SystemExit(10 + outcome.step)


def run(world: int, kind: str, out: Path, *overrides: str, stop_at: int = 0) -> int:
    """The number of steps that are done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = [SPAWN.Process(target=child, args=(r, world, port, kind, out, overrides, stop_at)) for r in range(world)]
    for process in made:
        process.start()
    for process in made:
        process.join()
    (code,) = {process.exitcode for process in made}
    assert code is not None and code >= 10
    return code - 10


def figures(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images/s")} for line in lines]


def assert_close(one: Path, other: Path) -> None:
    lines = figures(one)
    assert lines
    for a, b in zip(lines, figures(other), strict=True):
        assert a == pytest.approx(b, rel=RELATIVE, abs=1e-6)
    mine, theirs = tiny.tensors(one / "model"), tiny.tensors(other / "model")
    assert mine.keys() == theirs.keys() and mine
    for name, tensor in mine.items():
        # Adam moves a weight whose gradient is noise by up to the learning rate, 1e-3
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-3, msg=name)


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("denoiser", ()),
        ("denoiser", ("accumulate=2",)),
        ("denoiser", ("sharded=true", "accumulate=2", "previews={count: 2, steps: 2, every: 3}")),
        ("codec", ()),
        # what the main process alone makes, with nothing held out and at steps of its own: the others wait for it
        ("denoiser", ("data.validation=null", "probe={every: 4, count: 2}")),
        ("denoiser", ("previews={count: 2, steps: 2, every: 2}", "probe={every: 4, count: 2}")),
    ],
)
def test_same_losses(tmp_path: Path, kind: str, overrides: tuple[str, ...]) -> None:
    make = tiny.codec_recipe if kind == "codec" else tiny.denoiser_recipe
    tiny.train(make(tmp_path / "one", f"steps={STEPS}", *overrides))
    assert run(2, kind, tmp_path / "two", *overrides) == STEPS
    assert_close(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("sharded", ["sharded=false", "sharded=true"])
def test_a_signal_to_one_stops_all_and_one_goes_on(tmp_path: Path, sharded: str) -> None:
    tiny.train(tiny.denoiser_recipe(tmp_path / "one"))
    assert run(2, "denoiser", tmp_path / "two", sharded, stop_at=2) == 2
    assert run(2, "denoiser", tmp_path / "two", sharded, stop_at=3) == 3
    assert [path.name for path in (tmp_path / "two/checkpoints").iterdir() if "3" in path.name] == ["step-00000003"]
    outcome = tiny.train(tiny.denoiser_recipe(tmp_path / "two"))
    assert outcome.step == STEPS
    assert_close(tmp_path / "one", tmp_path / "two")


BAD = InputError("bad-file", "cut short", where="d/7.png")


def failing(rank: int, port: int, kind: str, out: Path, overrides: tuple[str, ...], where: str, told: Any) -> None:
    """One of two processes; the second one meets an error after three steps."""
    torch.set_num_threads(1)
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    from ldmkit_training.data.batches import Batches
    from ldmkit_training.loop.engine import Engine

    plain = Batches.steps

    def steps(self: Batches, start: int = 0) -> Iterator[tuple[int, list[Any]]]:
        for step, parts in plain(self, start):
            if step == 3 and rank == 1 and where == "file":
                raise BAD
            if step == 3 and rank == 1:
                parts[0].inputs[0]["label"] = "no such class"
            yield step, parts

    Batches.steps = steps  # type: ignore[method-assign]
    engine = Engine(tiny.denoiser_recipe(out, f"steps={STEPS}", "checkpoints.every=100", *overrides), Path())
    try:
        engine.run()
    except LdmkitError as error:
        told.put((rank, error.code, str(error)))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("where", "sharded", "code"),
    [
        ("file", "false", "input.bad-file"),
        ("file", "true", "input.bad-file"),
        ("input", "false", "input.unknown-label"),
    ],
)
def test_an_error_in_one_ends_all_and_saves_the_steps_before(
    tmp_path: Path, where: str, sharded: str, code: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told, overrides = SPAWN.Queue(), (f"sharded={sharded}",)
    args = [(rank, port, "denoiser", tmp_path / "two", overrides, where, told) for rank in range(2)]
    made = [SPAWN.Process(target=failing, args=each) for each in args]
    for process in made:
        process.start()
    said = {rank: (found, text) for rank, found, text in (told.get(timeout=300), told.get(timeout=300))}
    for process in made:
        process.join()
    assert [process.exitcode for process in made] == [0, 0]
    assert said[1][0] == code and said[0][0] == "run.other-process"
    assert said[0][1].startswith("[run.other-process] process 1 of 2 met an error: [" + code)
    assert "the 3 steps before it are saved in" in said[0][1] and "None" not in said[1][1]
    assert [path.name for path in (tmp_path / "two/checkpoints").iterdir()] == ["step-00000003"]
    tiny.train(tiny.denoiser_recipe(tmp_path / "one"))
    assert tiny.train(tiny.denoiser_recipe(tmp_path / "two")).step == STEPS
    assert_close(tmp_path / "one", tmp_path / "two")
