"""A run that is killed with SIGKILL anywhere goes on to the same bits as one that was not."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from ldmkit_training.loop.runfolder import CHECKPOINTS

CHAINS, KILLS = 2, 6
"""Runs that are killed, and how often each of them."""

SPAWN = multiprocessing.get_context("forkserver")
STAGES = ("ldmkit_training.stages.codec.stage", "ldmkit_training.stages.denoiser.stage")
SPAWN.set_forkserver_preload(
    ["torch._dynamo", "ldmkit_training.loop.engine", *STAGES, "ldmkit_miniworld.data", "accelerate.tracking"]
)


def recipe(kind: str, out: Path) -> object:
    return (tiny.codec_recipe if kind == "codec" else tiny.denoiser_recipe)(out, "steps=8", "checkpoints.keep=1")


def child(kind: str, out: Path, fatal: int | None, counted: Path) -> None:
    """A run that kills itself at its `fatal`-th look or touch at a file of its folder (opened, made, renamed, removed,
    listed ...), and says in a file how many there were."""
    torch.set_num_threads(1)
    number = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal number
        path = arguments[0] if event in FILES and arguments else None
        if isinstance(path, (str, os.PathLike)) and CHECKPOINTS in str(path):
            number += 1
            if number == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    tiny.train(recipe(kind, out))
    counted.write_text(str(number), encoding="utf-8")


FILES = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.scandir", "os.listdir"})


def start(*arguments: object) -> multiprocessing.Process:
    process = SPAWN.Process(target=child, args=arguments)
    process.start()
    return process


@pytest.mark.parametrize("kind", ["codec", "denoiser"])
def test_killed_at_many_points(tmp_path: Path, kind: str) -> None:
    counted = tmp_path / "counted"
    whole = start(kind, tmp_path / "whole", None, counted)
    whole.join()
    assert whole.exitcode == 0
    touches = int(counted.read_text())
    assert touches > 100, "the hook sees the writing of every file of a checkpoint"
    dice, killed = random.Random(kind), 0
    for chain in range(CHAINS):
        out = tmp_path / f"chain{chain}"
        for attempt in range(KILLS):
            # far short of the end at first, so that no chain gets there unhurt; the others fall between two files
            fatal = dice.randrange(1, touches * (attempt + 2) // (KILLS + 1)) if attempt % 2 == 0 else None
            process = start(kind, out, fatal, counted)
            if fatal is None:
                time.sleep(dice.uniform(0.15, 0.6))
                process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
        last = start(kind, out, None, counted)
        last.join()
        assert last.exitcode == 0
        for part in ("model", "checkpoints/step-00000008"):
            tiny.assert_same(tiny.tensors(tmp_path / "whole" / part), tiny.tensors(out / part))
        assert [path.name for path in (out / CHECKPOINTS).iterdir()] == ["step-00000008"], "nothing is left behind"
    assert killed >= CHAINS
