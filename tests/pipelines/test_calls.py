"""The ways a call may be written: positions, classes, flat specs, lists, integers of other libraries, parts that no
entry point names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.errors import InputError, PluginError
from ldmkit.models.weights import LazyTensor, assign


def same(a: ldmkit.Output, b: ldmkit.Output) -> bool:
    return torch.equal(a.images, b.images)


def test_a_start_by_position() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    assert ldmkit.Start(image, 0.5).strength == 0.5
    with pytest.raises(InputError, match="multiple values"):
        ldmkit.Start(image, image=image)
    with pytest.raises(InputError, match="6 values for 5 fields"):
        ldmkit.Start(image, 0.5, None, None, None, 1)


def test_strategies_in_every_form(class_pipe: ldmkit.Pipeline) -> None:
    ddim = ldmkit.get("sampler", "ddim")
    named = class_pipe({"label": 1}, steps=3, sampler="ddim")
    for form in (ddim, ddim(), {"type": "ddim"}, {"type": "ddim", "config": {"eta": 0}}, {"type": "ddim", "eta": 0}):
        assert same(class_pipe({"label": 1}, steps=3, sampler=form), named)
    noisy = class_pipe({"label": 1}, steps=3, sampler={"type": "ddim", "eta": 1})
    assert not same(noisy, named)
    listed = class_pipe({"label": 1}, grid=[9.0, 3.0, 0.5, 0.0])
    assert same(listed, class_pipe({"label": 1}, steps=3, grid={"type": "explicit", "values": [9.0, 3.0, 0.5, 0.0]}))
    assert listed.recipes[0]["steps"] == 3


def test_integers_of_other_libraries(class_pipe: ldmkit.Pipeline) -> None:
    plain = class_pipe({"label": 1}, steps=3, seeds=[5], size=16)
    assert same(class_pipe({"label": 1}, steps=np.int64(3), seeds=[np.uint32(5)], size=np.int32(16)), plain)
    with pytest.raises(InputError, match="integer"):
        class_pipe({"label": 1}, steps=np.float64(3))


def test_steps_are_the_models_own_unless_said(class_pipe: ldmkit.Pipeline) -> None:
    parts = {"codec": class_pipe.codec, "denoiser": class_pipe.denoiser, "process": class_pipe.process}
    wiring, given = class_pipe.wiring, class_pipe.conditioners
    pipe = ldmkit.Pipeline.of(**parts, conditioners=given, wiring=wiring, defaults={"steps": 7, "size": (16, 16)})
    assert len(list(pipe.stream({"label": 1}))) == len(list(pipe.stream({"label": 1}, steps=None))) == 7
    out = pipe({"label": 1})
    assert out.recipes[0]["steps"] == 7 and same(out, pipe({"label": 1}, steps=7))
    assert not same(out, pipe({"label": 1}, steps=30))


def test_steps_that_a_grid_cannot_make_are_refused(class_pipe: ldmkit.Pipeline) -> None:
    values = [9.0, 5.0, 3.0, 0.5, 0.0]
    assert len(class_pipe.prepare({"label": 1}, grid=values).sigmas) == 5
    assert same(class_pipe({"label": 1}, grid=values), class_pipe({"label": 1}, grid=values, steps=4))
    for steps in (30, 5, 3):
        with pytest.raises(InputError, match=f"{steps} steps, but the grid has 4"):
            class_pipe({"label": 1}, grid=values, steps=steps)


def test_a_stream_refuses_at_once(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(InputError):
        class_pipe.stream({"lable": 1})


def test_a_prepared_run_may_be_run_again(class_pipe: ldmkit.Pipeline) -> None:
    prepared = class_pipe.prepare({"label": 1}, steps=4, sampler="heun", guidance=2.0, seeds=[0, 1])
    assert (prepared.evaluations, prepared.rows) == (7, 4)
    assert same(class_pipe.run(prepared), class_pipe.run(prepared))


def test_views_that_drop_what_nobody_gave_are_evaluated_once(scene_pipe: ldmkit.Pipeline) -> None:
    boxes = [{"label": "dog", "box": [0.1, 0.2, 0.5, 0.9]}]
    scales = {"label": 1.5, "layout": 3.0, "semantic": 2.0}
    asked: list[int] = []
    hook = scene_pipe.denoiser.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    try:
        alone = scene_pipe({"layout": boxes}, guidance=scales, steps=2)
        assert scene_pipe.prepare({"layout": boxes}, guidance=scales).rows == 2 and set(asked) == {2}
        asked.clear()
        scene_pipe({}, guidance=scales, steps=1)
        assert set(asked) == {1}
        asked.clear()
        # a negative input is no null: the view without the class differs from the one that has it
        scene_pipe({"layout": boxes}, negative={"label": 2}, guidance=scales, steps=1)
        assert set(asked) == {3}
        asked.clear()
        mixed = [{"layout": boxes}, {"label": 1}]
        assert scene_pipe.prepare(mixed, guidance=scales).rows == 6
        scene_pipe(mixed, guidance=scales, steps=1)
        assert set(asked) == {6}
    finally:
        hook.remove()
    # the absent ones' differences are zero, whatever their scales: what is left is guidance by the layout
    plain = scene_pipe({"layout": boxes}, guidance={"layout": 3.0}, steps=2)
    assert torch.allclose(alone.images, plain.images, atol=1e-5)


def test_weights_may_be_stored_smaller_than_they_run(scene_pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    folder = scene_pipe.save(tmp_path / "small", store=torch.bfloat16)
    whole = scene_pipe.save(tmp_path / "whole")
    size = [(path / "denoiser.safetensors").stat().st_size for path in (folder, whole)]
    assert size[0] < 0.75 * size[1]
    small = ldmkit.load(folder)
    assert small.denoiser.dtype == torch.float32 == small.conditioners["layout"].dtype
    for key, value in small.denoiser.state_dict().items():
        assert torch.equal(value, scene_pipe.denoiser.state_dict()[key].bfloat16().float())
    assert ldmkit.load(folder, dtype="bfloat16").denoiser.dtype == torch.bfloat16
    # saved once more it says what it is: float32 in the files, and half of it where it was converted
    again = ldmkit.load(small.save(tmp_path / "again"))
    assert again.spec.hash == small.spec.hash and again.denoiser.dtype == torch.float32
    half = ldmkit.load(ldmkit.load(folder).to(torch.bfloat16).save(tmp_path / "half"))
    assert half.denoiser.dtype == torch.bfloat16


class Own(ldmkit.Denoiser):
    """A denoiser that no entry point names."""

    def __init__(self) -> None:
        super().__init__({})
        self.channels, self.slots, self.ports = 3, {}, {}
        self.gain = torch.nn.Parameter(torch.tensor(0.1))

    def prepare(self, signals: object) -> ldmkit.Context:
        return ldmkit.Context({})

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: object, sigma: float | None = None) -> torch.Tensor:
        return x * self.gain


def test_parts_that_no_entry_point_names_run_but_are_not_saved(tmp_path: Path) -> None:
    parts = {"codec": tiny_parts.part("codec", "identity", {}), "process": ldmkit.get("process", "discrete")()}
    pipe = ldmkit.Pipeline.of(denoiser=Own(), **parts, defaults={"size": (8, 8)})
    out = pipe({}, steps=2)
    assert out.images.isfinite().all() and out.recipes[0]["parts"]["denoiser"].startswith(f"{__name__}:Own")
    with pytest.raises(PluginError, match="not registered"):
        pipe.save(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_a_negative_that_nobody_looks_at_is_said(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.warns(UserWarning, match="no effect"):
        class_pipe({"label": 1}, negative={"label": 2}, steps=1, guidance="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        class_pipe({"label": 1}, negative={"label": 2}, steps=4, guidance=2.0)


def test_pictures_on_another_scale_are_refused(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(InputError, match="values up to 255"):
        class_pipe.encode(torch.full((1, 3, 16, 16), 255.0))
    with pytest.raises(InputError, match="uint8"):
        class_pipe.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_mixed_precision_files_are_widened() -> None:
    with torch.device("meta"):
        layer = torch.nn.Linear(2, 2)
    weights = {"weight": LazyTensor.of(torch.eye(2).half()), "bias": LazyTensor.of(torch.full((2,), 1 / 3))}
    assign(layer, weights, "layer")
    assert layer.weight.dtype == layer.bias.dtype == torch.float32
    assert torch.equal(layer(torch.ones(1, 2)), torch.full((1, 2), 1 + 1 / 3))


def test_a_replay_loads_as_the_picture_did(class_folder: Path, tmp_path: Path) -> None:
    pipe = ldmkit.load(class_folder, dtype="bfloat16")
    (path,) = pipe({"label": 1}, steps=2).save(tmp_path / "p.png")
    recipe = ldmkit.run.recipe.read_recipe(path)
    assert recipe["load"] == {"dtype": "bfloat16"}
    from ldmkit.cli import main

    assert main(["replay", str(path), "--trust", "--json"]) == 0


def test_strategies_with_their_config_at_the_command_line(
    class_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ldmkit.cli import main

    out = str(tmp_path / "a.png")
    options = ["--sampler", "ddim:eta=0.5", "--grid", "explicit:values=[9,3,0.5,0]", "--guidance", "cfg:scale=2"]
    assert main(["sample", str(class_folder), "--label", "1", "--out", out, "--json", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["recipe"]["sampler"]["type"] == "ddim" and shown["recipe"]["sampler"]["config"]["eta"] == 0.5
    assert shown["recipe"]["guidance"]["config"]["scale"] == 2 and (shown["evaluations"], shown["rows"]) == (3, 2)
    assert main(["sample", str(class_folder), "--mask", "x.png", "--out", out]) == 2
    assert "option-conflict" in capsys.readouterr().err


def test_plugin_options_last_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    from ldmkit.cli import main

    assert main(["--deny", "sampler:ddim", "plugins", "--kind", "sampler", "--json"]) == 0
    statuses = {row["name"]: row["status"] for row in json.loads(capsys.readouterr().out)}
    assert statuses["ddim"] == "disabled" and statuses["euler"] == "ok"
    assert "ddim" in ldmkit.components("sampler")
