"""A cascade is called like a pipeline: its stages run in order, and each is what a call by hand gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cascade_parts
import pytest
import tiny_parts
import torch

import ldmkit

TOLERANCE = 1e-5
"""Of pixels in [0, 1]: a convolution of a larger batch sums in another order; measured up to 4e-6 on these networks."""


@pytest.fixture(scope="module")
def cascade() -> ldmkit.Cascade:
    return cascade_parts.cascade()


def by_hand(cascade: ldmkit.Cascade, label: int, seed: int, **up: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The pictures of both stages, each called by itself."""
    stages = cascade.stages
    base = stages["base"]({"label": label}, seeds=[ldmkit.stage_seed(seed, "base")]).images
    low = base[0] * 2 - 1
    return base, stages["up"]({"label": label, "low": low}, seeds=[ldmkit.stage_seed(seed, "up")], **up).images


def test_each_stage_is_what_a_call_by_hand_draws(cascade: ldmkit.Cascade) -> None:
    out = cascade({"label": 2}, seeds=7, stages={"up": {"steps": 2, "guidance": 2.0}})
    base, up = by_hand(cascade, 2, 7, steps=2, guidance=2.0)
    assert torch.equal(out.stages["base"].images, base) and torch.equal(out.images, up)
    assert list(out.stages) == ["base", "up"] and out.stages["up"].images is out.images
    assert not torch.equal(base, up)


def test_stages_draw_noise_of_their_own(cascade: ldmkit.Cascade) -> None:
    seeds = {ldmkit.stage_seed(seed, name) for seed in range(50) for name in ("base", "up", "u", "p")}
    assert len(seeds) == 200 and all(0 <= seed < 2**63 for seed in seeds)
    one, other = (cascade({"label": 1}, stages={"up": {"seeds": seed}}) for seed in (1, 2))
    assert torch.equal(one.stages["base"].images, other.stages["base"].images)
    assert not torch.equal(one.images, other.images)


def test_options_of_all_stages_and_of_one(cascade: ldmkit.Cascade) -> None:
    out = cascade({"label": 1}, steps=5, sampler="ddim", stages={"up": {"steps": 2, "sampler": "euler"}})
    calls = out.recipes[0]["stages"]
    assert (calls["base"]["steps"], calls["up"]["steps"]) == (5, 2)
    assert (calls["base"]["sampler"]["type"], calls["up"]["sampler"]["type"]) == ("ddim", "euler")


def test_a_batch_is_each_by_itself(cascade: ldmkit.Cascade) -> None:
    rows = [{"label": 1}, {"label": 3}, {"label": 1}]
    together = cascade(rows, seeds=[5, 6, 7])
    for i, (row, seed) in enumerate(zip(rows, [5, 6, 7], strict=True)):
        alone = cascade(row, seeds=seed)
        for name in ("base", "up"):
            mine, its = together.stages[name].images[i], alone.stages[name].images[0]
            assert torch.allclose(mine, its, rtol=0, atol=TOLERANCE)
        assert together.row(i).recipes == alone.recipes
        assert torch.equal(together.row(i).stages["base"].images[0], together.stages["base"].images[i])


def test_stream_says_which_stage(cascade: ldmkit.Cascade) -> None:
    steps = list(cascade.stream({"label": 2}, stages={"up": {"steps": 2}}))
    assert [(step.stage, step.index, step.count) for step in steps] == [
        *(("base", i, 4) for i in range(4)),
        *(("up", i, 2) for i in range(2)),
    ]
    seen: list[tuple[str | None, int]] = []
    out = cascade({"label": 2}, stages={"up": {"steps": 2}}, on_step=lambda step: seen.append((step.stage, step.index)))
    assert seen == [(step.stage, step.index) for step in steps]
    assert torch.allclose((steps[-1].x * 0.5 + 0.5).clamp(0, 1), out.images, atol=1e-6)


def test_a_stream_that_is_left_lets_parts_go(cascade: ldmkit.Cascade) -> None:
    stream: Any = cascade.stream({"label": 2})
    next(stream)
    with pytest.raises(ldmkit.RunError, match="busy") as caught:
        cascade.to(torch.float32)
    assert "base" in str(caught.value)
    stream.close()
    assert cascade.to("cpu") is cascade


def counted(cascade: ldmkit.Cascade, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What the class conditioner is asked to encode from here on."""
    asked: list[list[Any]] = []
    kind = type(cascade.stages["base"].conditioners["label"])
    forward = kind.forward

    def counting(self: Any, inputs: list[Any]) -> Any:
        asked.append(list(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(kind, "forward", counting)
    return asked


def test_what_stages_share_is_encoded_once(cascade: ldmkit.Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(cascade, monkeypatch)
    plain = cascade({"label": 2}, guidance=3.0)
    once = len(asked)
    assert [inputs for inputs in asked if 2 in inputs] == [[2]]
    cascade.stages["base"]({"label": 2}, guidance=3.0, seeds=0)
    assert len(asked) == 2 * once  # a pipeline by itself asks as often as both stages together
    apart = ldmkit.Cascade.of(
        {"base": cascade.stages["base"], "up": cascade_parts.second(grid={"type": "trailing"})},
        {"up": {"inputs": {"low": "base"}}},
    )
    asked.clear()
    assert torch.equal(apart({"label": 2}, guidance=3.0).images, plain.images)
    assert len(asked) == 2 * once


def test_begin_with_a_picture_of_ones_own(cascade: ldmkit.Cascade) -> None:
    whole = cascade({"label": 2}, seeds=[3])
    low = whole.stages["base"].images[0] * 2 - 1
    later = cascade({"label": 2, "low": low}, seeds=[3], first="up")
    assert torch.equal(later.images, whole.images) and list(later.stages) == ["up"]
    assert not torch.equal(cascade({"label": 2, "low": -low}, seeds=[3], first="up").images, whole.images)


def test_stop_after_a_stage(cascade: ldmkit.Cascade) -> None:
    whole, first = cascade({"label": 2}, seeds=[3]), cascade({"label": 2}, seeds=[3], last="base")
    assert list(first.stages) == ["base"] and torch.equal(first.images, whole.stages["base"].images)
    assert first.recipes == whole.stages["base"].recipes


def test_one_folder(cascade: ldmkit.Cascade, tmp_path: Path) -> None:
    folder = cascade.save(tmp_path / "model")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == [
        "base/conditioners/label.safetensors", "base/denoiser.safetensors", "base/pipeline.json",
        "cascade.json", "up/denoiser.safetensors", "up/pipeline.json",
    ]  # fmt: skip
    loaded = ldmkit.Cascade.load(folder, verify="full")
    assert isinstance(loaded, ldmkit.Cascade) and loaded.spec == cascade.spec and loaded.origin == str(folder)
    shared = [loaded.stages[name].conditioners["label"] for name in ("base", "up")]
    assert shared[0] is shared[1]
    call: dict[str, Any] = {"inputs": {"label": 4}, "seeds": [9], "guidance": 2.0}
    assert torch.equal(loaded(**call).images, cascade(**call).images)
    again = loaded.save(folder)
    assert torch.equal(ldmkit.Cascade.load(again)(**call).images, cascade(**call).images)


def test_replay_is_exact(cascade: ldmkit.Cascade, tmp_path: Path) -> None:
    loaded = ldmkit.Cascade.load(cascade.save(tmp_path / "model"))
    given = {"up": {"steps": 2, "guidance": 2.5, "sampler": {"type": "ddim", "eta": 0.5}}}
    out = loaded({"label": 4}, seeds=[9], guidance=1.5, negative={"label": 0}, stages=given)
    recipe = ldmkit.read_recipe(out.save(tmp_path / "a.png")[0])
    assert "low" not in recipe["stages"]["up"]["inputs"] and recipe["seed"] == 9
    assert torch.equal(ldmkit.replay(loaded, recipe).images, out.images)
    base = ldmkit.read_recipe(out.stages["base"].save(tmp_path / "b.png")[0])
    drawn = ldmkit.replay(loaded, base)
    assert torch.equal(drawn.images, out.stages["base"].images)
    with pytest.raises(ldmkit.SourceError, match="other-model"):
        ldmkit.replay(cascade.stages["base"], recipe)
    other = loaded.with_(up=loaded.stages["up"].with_(steps=9))
    with pytest.raises(ldmkit.SourceError, match="other-model"):
        ldmkit.replay(other, recipe)


def test_a_picture_of_ones_own_is_in_the_recipe(cascade: ldmkit.Cascade, tmp_path: Path) -> None:
    low = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = cascade({"label": 2, "low": low}, first="up")
    recipe = ldmkit.read_recipe(out.save(tmp_path / "a.png")[0])
    assert torch.equal(ldmkit.replay(cascade, recipe).images, out.images)


def test_estimate_of_all_stages(cascade: ldmkit.Cascade) -> None:
    prepared = cascade.prepare({"label": 1}, guidance=2.0, stages={"up": {"steps": 2, "guidance": 1.0}})
    assert (prepared.total, prepared.evaluations, prepared.rows) == (6, 6, 2)
    first, second = cascade.run(prepared), cascade.run(prepared)
    assert torch.equal(first.images, second.images)
    made = [output.evaluations for output in first.stages.values()]
    assert sum(one.made for one in made if one is not None) == prepared.evaluations


def test_a_second_pass_at_a_larger_size() -> None:
    """Draw small, enlarge, draw on: one pipeline in both stages, held once, and only the spec says so."""
    pipe = tiny_parts.class_pipeline(grid={"type": "trailing"})
    start = {"stage": "small", "strength": 0.5, "enlarge": 2}
    twice = ldmkit.Cascade.of({"small": pipe, "large": pipe}, {"large": {"start": start}})
    assert twice.wiring["large"].shares == {
        path: f"small.{path}" for path in ("codec", "denoiser", "conditioners.label")
    }
    out = twice({"label": 1}, seeds=[4])
    small = out.stages["small"].images * 2 - 1
    enlarged = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic").clamp(-1, 1)
    seed = ldmkit.stage_seed(4, "large")
    alone = pipe({"label": 1}, seeds=[seed], start={"image": enlarged[0], "strength": 0.5})
    assert out.images.shape[-2:] == (16, 16) and torch.equal(out.images, alone.images)
    assert torch.equal(ldmkit.replay(twice, out.recipes[0]).images, out.images)


def test_a_refiner_takes_latents(tmp_path: Path) -> None:
    pipe = tiny_parts.class_pipeline("kl", grid={"type": "trailing"})
    wiring = {"refine": {"start": {"stage": "draw", "strength": 0.5}}}
    twice = ldmkit.Cascade.of({"draw": pipe, "refine": pipe}, wiring)
    out = twice({"label": 1}, seeds=[4])
    seed = ldmkit.stage_seed(4, "refine")
    start = {"latents": out.stages["draw"].latents[0], "strength": 0.5}
    assert torch.equal(out.images, pipe({"label": 1}, seeds=[seed], start=start).images)
    loaded = ldmkit.Cascade.load(twice.save(tmp_path / "two"))
    assert loaded.stages["draw"].denoiser is loaded.stages["refine"].denoiser
    assert not list((tmp_path / "two" / "refine").glob("*.safetensors"))
    assert torch.equal(loaded({"label": 1}, seeds=[4]).images, out.images)


def test_stages_are_exchanged(cascade: ldmkit.Cascade) -> None:
    planned = cascade.planned("eager")
    assert torch.equal(planned({"label": 1}).images, cascade({"label": 1}).images)
    quick = cascade.with_(up=cascade.stages["up"].with_(steps=2))
    assert quick.prepare({"label": 1}).total == 6 and cascade.prepare({"label": 1}).total == 7
