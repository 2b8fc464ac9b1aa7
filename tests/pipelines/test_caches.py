"""Caches of whole estimates: what they equal, that runs and rows share nothing, what is counted and recorded."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit import Evaluations, InputError, PluginError
from ldmkit.cli import main
from ldmkit.replaying import replay

PIPE = tiny_parts.class_pipeline()
GIVEN = {"label": 1}
CALL: dict[str, Any] = {"steps": 8, "seeds": [1, 2, 3], "guidance": 2.5}
CHANGE = {"type": "input-change", "threshold": 0.2}


@pytest.mark.parametrize("off", [{"type": "interval", "interval": 1}, {"type": "input-change", "threshold": 0}])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "euler-ancestral"])
def test_off_is_without(off: Any, sampler: str) -> None:
    want, got = PIPE(GIVEN, sampler=sampler, **CALL), PIPE(GIVEN, sampler=sampler, cache=off, **CALL)
    assert torch.equal(got.latents, want.latents) and torch.equal(got.images, want.images)
    assert got.evaluations == want.evaluations and want.evaluations is not None and want.evaluations.reused == 0


@pytest.mark.parametrize("keep", ["x0", "noise"])
@pytest.mark.parametrize("interval", [2, 3, 5])
def test_with_euler_steps_it_is_fewer_steps(interval: int, keep: str) -> None:
    """An x0 or a noise that stays makes two Euler steps one: the same as the grid of the levels that were evaluated.

    Tolerance: 1e-4 of the largest value, rounding of the sums.
    """
    sigmas = PIPE.prepare(GIVEN, sampler="euler", **CALL).sigmas
    evaluated = [i for i in range(8) if i % interval == 0 or i == 7]
    cache = {"type": "interval", "interval": interval, "keep": keep}
    prepared = PIPE.prepare(GIVEN, sampler="euler", cache=cache, **CALL)
    got = PIPE.run(prepared)
    options = {**CALL, "steps": len(evaluated)}
    want = PIPE(GIVEN, sampler="euler", grid=[*(sigmas[i] for i in evaluated), 0.0], **options)
    assert torch.allclose(got.latents, want.latents, rtol=0, atol=1e-4 * float(want.latents.abs().max()))
    made = len(evaluated)
    assert got.evaluations == Evaluations(made=made, reused=8 - made)
    assert prepared.evaluations == prepared.estimate.evaluations == made


@pytest.mark.parametrize("cache", ["interval", CHANGE, {**CHANGE, "keep": "noise"}], ids=str)
@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm2", "euler-ancestral", "dpmpp-2m"])
def test_all_calls_are_answered_and_counted(cache: Any, sampler: str) -> None:
    out = PIPE(GIVEN, sampler=sampler, cache=cache, **CALL)
    taken = out.evaluations
    assert taken is not None and taken.reused > 0 and bool(out.latents.isfinite().all())
    assert taken.made + taken.reused == PIPE.prepare(GIVEN, sampler=sampler, **CALL).evaluations


def test_a_picture_is_the_same_alone_and_in_a_batch() -> None:
    """Tolerance 1e-4 of the largest value: what batches of convolutions differ by, through eight steps."""
    rows = [{"label": label} for label in (0, 1, 2)]
    whole = PIPE(rows, cache=CHANGE, **CALL)
    for i, row in enumerate(rows):
        alone = PIPE(row, cache=CHANGE, **{**CALL, "seeds": [CALL["seeds"][i]]})
        limit = 1e-4 * float(alone.latents.abs().max())
        assert torch.allclose(whole.latents[i], alone.latents[0], rtol=0, atol=limit)


def test_runs_and_threads_share_nothing() -> None:
    prepared = PIPE.prepare(GIVEN, cache=CHANGE, **CALL)
    want = PIPE.run(prepared)
    assert torch.equal(PIPE.run(prepared).latents, want.latents)
    barrier, found = threading.Barrier(2), {}

    def draw(number: int) -> None:
        found[number] = PIPE.run(prepared, lambda step: barrier.wait(20))

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(torch.equal(found[i].latents, want.latents) for i in range(2))
    assert all(found[i].evaluations == want.evaluations for i in range(2))


def test_the_change_is_that_of_what_the_network_reads() -> None:
    """Calls by the rule in a few lines of its own: one row, no guidance, Euler."""
    options: dict[str, Any] = {"steps": 8, "seeds": [4], "sampler": "euler"}
    states: list[tuple[float, torch.Tensor]] = []
    prepared = PIPE.prepare(GIVEN, cache=CHANGE, **options)
    states.append((prepared.sigmas[0], prepared.x.clone()))
    out = PIPE.run(prepared, lambda step: states.append((step.sigma_next, step.x.clone())))
    total, calls, before = 0.0, 0, None
    for i, (sigma, x) in enumerate(states[:-1]):
        read = x * PIPE.process.scalings(sigma)[2]
        total += 0.0 if before is None else float((read - before).abs().mean() / before.abs().mean())
        if before is None or i == 7 or total >= 0.2:
            calls, total = calls + 1, 0.0
        before = read
    assert out.evaluations == Evaluations(made=calls, reused=8 - calls) and 1 < calls < 8


def test_what_is_kept_of_a_picture_stays() -> None:
    start = PIPE(GIVEN, **{**CALL, "seeds": [9]}).images[0]
    mask = torch.zeros(1, 8, 8)
    mask[:, :, 4:] = 1
    given = {"image": start, "mask": mask, "strength": 1.0}
    for keep in ("x0", "noise"):
        cache = {"type": "interval", "interval": 3, "keep": keep}
        out = PIPE(GIVEN, start=given, cache=cache, sampler="euler-ancestral", **CALL)
        known = start[None, :, :, :4]
        assert torch.allclose(out.latents[:, :, :, :4], known.expand(3, -1, -1, -1), atol=1e-4)


def test_recipes_replay_it() -> None:
    out = PIPE(GIVEN, cache=CHANGE, **{**CALL, "seeds": [5]})
    recipe = json.loads(json.dumps(out.recipes[0]))
    assert recipe["cache"]["type"] == "input-change" and recipe["cache"]["config"]["threshold"] == 0.2
    assert torch.equal(replay(PIPE, recipe).latents, out.latents)
    assert "cache" not in PIPE(GIVEN, **CALL).recipes[0]


def test_what_cannot_be() -> None:
    with pytest.raises(PluginError, match="input-change"):
        PIPE(GIVEN, cache="input-chang", **CALL)
    with pytest.raises(InputError, match="cache-sampler"):
        PIPE(GIVEN, cache="interval", sampler="euler-cfg-pp", **CALL)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "--text", "a red circle", "--steps", "4", "--json", "--out", str(tmp_path / "a.png")]
    assert main([*words, "--cache", "interval:interval=3"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["evaluations"] == 2 and told["recipe"]["cache"]["config"]["interval"] == 3
    assert main([*words, "--cache", "intervall"]) == 4 and "interval" in capsys.readouterr().out
    assert sorted(ldmkit.components("cache")) == ["input-change", "interval"]
