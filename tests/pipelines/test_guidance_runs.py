"""Guidance of every kind through whole pipelines: memory of a run, views counted, plans, recipes, a second model."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from torch import Tensor

import ldmkit
from ldmkit import CompositionError
from ldmkit.cli import main

CLASSES = {"label": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "apg": {"scale": 4.0, "momentum": -0.6, "threshold": 0.0},
    "cfg-zero-star": {"scale": 4.0},
    "tcfg": {"scale": 4.0, "space": "x0"},
    "cfg": {"scale": 4.0, "rescale": 0.7, "space": "output"},
    "pag": {"scale": 4.0, "strength": 2.0, "layers": ["mid", "up.1"]},
    "seg": {"scale": 1.0, "strength": 2.0, "blur": 1.0},
    "slg": {"scale": 4.0, "disturbed_start": 0.0, "disturbed_end": 0.5},
}
ROWS = {"apg": 2, "cfg-zero-star": 2, "tcfg": 2, "cfg": 2, "pag": 3, "seg": 2, "slg": 3}


def asked(name: str) -> dict[str, Any]:
    return {"type": name, "config": SETTINGS[name]}


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return tiny_parts.class_pipeline()


def drawn(pipe: ldmkit.Pipeline, name: str, **more: Any) -> Tensor:
    return pipe(CLASSES, seeds=[0, 1], steps=5, sampler="euler", guidance=asked(name), **more).latents


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_is_the_same_twice_prepared_once_in_threads_and_beside_others(pipe: ldmkit.Pipeline, name: str) -> None:
    wanted = drawn(pipe, name)
    assert torch.equal(drawn(pipe, name), wanted)
    prepared = pipe.prepare(CLASSES, seeds=[0, 1], steps=5, sampler="euler", guidance=asked(name))
    runs = [prepared.steps(), prepared.steps()]
    last = [None, None]
    for _ in range(5):
        for i, run in enumerate(runs):
            last[i] = next(run).x  # type: ignore[call-overload]
    settled = [prepared.evaluate.process.settled(x, 0.0) for x in last]  # type: ignore[arg-type]
    assert all(torch.equal(x, wanted) for x in settled)
    assert prepared.evaluate.memory == {}
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(drawn, pipe, one) for one in (name, "apg", name, "pag", name)]
        assert all(torch.equal(others[i].result(), wanted) for i in (0, 2, 4))
    assert not torch.equal(wanted, pipe(CLASSES, seeds=[0, 1], steps=5, sampler="euler", guidance=4.0).latents)


def test_momentum_is_remembered_from_step_to_step(pipe: ldmkit.Pipeline) -> None:
    without = {"type": "apg", "config": {**SETTINGS["apg"], "momentum": 0.0}}
    first = [next(iter(pipe.stream(CLASSES, steps=5, guidance=g))).x for g in (asked("apg"), without)]
    assert torch.equal(*first)
    ends = [pipe(CLASSES, steps=5, guidance=g).latents for g in (asked("apg"), without)]
    assert not torch.allclose(*ends, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_are_counted_before_the_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of disturbed networks too, which read them in calls of their own."""
    pipe, rows = tiny_parts.class_pipeline(), list[int]()
    inner = type(pipe.denoiser).forward

    def counted(self: Any, x: Tensor, *more: Any) -> Tensor:
        rows.append(len(x))
        return inner(self, x, *more)

    monkeypatch.setattr(type(pipe.denoiser), "forward", counted)
    prepared = pipe.prepare(CLASSES, seeds=[0, 1], steps=5, sampler="euler", guidance=asked(name))
    for _ in prepared.steps():
        pass
    disturbed = prepared.request.guidance.perturbed(["label"])
    assert prepared.rows == prepared.estimate.rows == 2 * ROWS[name]
    steps = 2 if name == "slg" else 5
    waiting = 1 if name == "cfg-zero-star" else 0  # the first step evaluates one view
    assert sum(rows) == 2 * (5 * (ROWS[name] - disturbed) + steps * disturbed - waiting)
    assert len(rows) == 5 + steps * disturbed and max(rows) == 2 * (ROWS[name] - disturbed)


def test_an_interval_that_is_never_met_is_the_conditional_run(pipe: ldmkit.Pipeline) -> None:
    plain = pipe(CLASSES, seeds=[0, 1], steps=5, sampler="euler", guidance="none").latents
    for name in SETTINGS:
        config = {**SETTINGS[name], "interval": (500.0, 600.0)}
        off = pipe(CLASSES, seeds=[0, 1], steps=5, sampler="euler", guidance={"type": name, "config": config}).latents
        assert torch.equal(off, plain), name


@pytest.mark.parametrize("sampler", ["heun", "dpmpp-2s-ancestral", "euler-cfg-pp", "dpmpp-2m-cfg-pp"])
def test_every_kind_with_samplers_that_ask_more_than_once_or_for_more(pipe: ldmkit.Pipeline, sampler: str) -> None:
    for name in SETTINGS:
        out = pipe(
            CLASSES, steps=4, sampler=sampler, guidance={"type": name, "config": {**SETTINGS[name], "scale": 0.9}}
        )
        assert out.latents.isfinite().all(), name


def test_the_plan_stays_in_use_beside_a_disturbed_network(pipe: ldmkit.Pipeline) -> None:
    """On packed weights to 1e-4 of the largest latent: the plan's own rounding, through five steps of guidance."""
    planned = pipe.planned("prepacked")
    for name in ("pag", "seg", "slg", "apg"):
        wanted, found = drawn(pipe, name), drawn(planned, name)
        assert not torch.equal(wanted, found), "it ran eagerly"
        assert float((wanted - found).abs().max() / wanted.abs().max()) < 1e-4, name


@pytest.mark.parametrize("name", SETTINGS)
def test_the_command_line_and_replay(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "model", tmp_path / "a.png"
    tiny_parts.class_pipeline().save(folder)
    fields = {key: value for key, value in SETTINGS[name].items() if key != "layers"}
    text = f"{name}:" + ",".join(f"{key}={value}" for key, value in fields.items())
    options = ["--label", "1", "--seed", "3", "--steps", "4", "--guidance", text, "--out", str(out)]
    assert main(["sample", str(folder), *options]) == 0
    capsys.readouterr()
    assert main(["replay", str(out), "--trust", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    recipe = ldmkit.load(folder)({"label": 1}, seeds=[3], steps=4, guidance={"type": name, "config": fields}).recipes[0]
    assert recipe["guidance"]["config"].items() >= fields.items()


def weaker(pipe: ldmkit.Pipeline, folder: Path) -> Path:
    """A second model of the same kind, worse: its weights are noisy."""
    other = tiny_parts.class_pipeline()
    with torch.no_grad():
        for parameter in other.denoiser.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return other.save(folder)


def test_autoguidance_from_a_second_model(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """weak + s (conditional - weak), the conditions encoded by the first model's conditioners alone."""
    model = weaker(pipe, tmp_path / "weak")
    guidance = {"type": "autoguidance", "config": {"model": str(model), "scale": 2.5}}
    prepared = pipe.prepare(CLASSES, seeds=[0, 1], steps=5, guidance=guidance)
    assert prepared.rows == prepared.estimate.rows == 4
    x, sigma = prepared.x, prepared.sigmas[0]
    conditional = prepared.evaluate(x, sigma, frozenset())[0]
    alone = ldmkit.Pipeline.of(
        codec=pipe.codec,
        denoiser=ldmkit.load(model).denoiser,
        process=pipe.process,
        conditioners=dict(pipe.conditioners),
    )
    weak = alone.prepare({**CLASSES}, seeds=[0, 1], steps=5, size=(8, 8), guidance="none").denoise(x, sigma)
    assert torch.allclose(prepared.denoise(x, sigma), weak + 2.5 * (conditional - weak), atol=1e-5)
    one = {"type": "autoguidance", "config": {"model": str(model), "scale": 1.0}}
    plain = pipe(CLASSES, steps=5, guidance="none").latents
    assert torch.equal(pipe(CLASSES, steps=5, guidance=one).latents, plain)


def test_autoguidance_refuses_a_network_for_other_conditions(tmp_path: Path) -> None:
    model = tiny_parts.class_pipeline().save(tmp_path / "classes")
    guidance = {"type": "autoguidance", "config": {"model": str(model)}}
    with pytest.raises(CompositionError, match="slots") as caught:
        tiny_parts.scene_pipeline()({"label": 1}, steps=2, size=(8, 8), guidance=guidance)
    assert caught.value.code == "compose.weaker-network"
    with pytest.raises(ldmkit.LdmkitError):
        missing = {"type": "autoguidance", "config": {"model": str(tmp_path / "nowhere")}}
        tiny_parts.class_pipeline()(CLASSES, steps=2, guidance=missing)


def test_a_recipe_that_names_a_second_model_is_not_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, elsewhere = tmp_path / "here", tmp_path / "there"
    folder.mkdir()
    elsewhere.mkdir()
    pipe = tiny_parts.class_pipeline()
    model = weaker(pipe, elsewhere / "weak")
    pipe.save(folder / "model")
    loaded = ldmkit.load(folder / "model")
    loaded(CLASSES, steps=2, guidance={"type": "autoguidance", "config": {"model": str(model)}}).save(folder / "a.png")
    assert main(["replay", str(folder / "a.png"), "--model", str(folder / "model")]) != 0
    told = capsys.readouterr().err
    assert "recipe-needs" in told and "guidance.config.model" in told
