"""The stage that trains IP-Adapters: it begins as the base, drops in three ways, and its file comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_parts
import torch
from ldmkit_training.before.plan import make_plan
from ldmkit_training.before.recipe import Recipe, overridden, parse_recipe
from ldmkit_training.check_command import checked
from ldmkit_training.data.batches import Batches
from ldmkit_training.data.section import open_data
from ldmkit_training.loop.engine import Engine
from ldmkit_training.stages.ip_adapter.example import write_encoder
from PIL import Image
from safetensors.torch import load_file
from started import started
from tiny import assert_same, base, tensors, train

import ldmkit
from ldmkit import CompositionError, Draws, InputError, LdmkitError, SourceError, SpecError

NAME, FILE = "ip-adapter", "ip-adapter.safetensors"
NO_DROPS = {"image": 0.0, "text": 0.0, "both": 0.0}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return started(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    torch.manual_seed(7)
    write_encoder(folder)
    return folder


def recipe(model: Path, images: Path, out: Path, *overrides: str, **section: Any) -> Recipe:
    data = {"stage": "ip-adapter", **base(out), "model": {"start": str(model)}, "probe": None}
    data["ip_adapter"] = {"encoder": str(images), **section}
    data["data"] = {**data["data"], "extract": {"ip-image": {"type": "tile"}}}
    return parse_recipe(overridden(data, overrides))


def picture(seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((16, 16))


def drawn(pipe: ldmkit.Pipeline, **inputs: Any) -> torch.Tensor:
    return pipe({"text": "a red house", **inputs}, steps=2, seeds=[3], guidance=2.0).latents


def first_batch(made: Recipe, stage: Any) -> Any:
    return Batches(open_data(made.data, Path())[0], made.data, seed=0, names=stage.inputs).at(0)[0]


def test_it_begins_with_the_bases_keys_and_values_and_alone_has_gradients(
    start: Path, encoder: Path, tmp_path: Path
) -> None:
    made = recipe(start, encoder, tmp_path / "run", drop=NO_DROPS)
    stage: Any = made.make_stage(Path())
    weights = ldmkit.load(start).denoiser.state_dict()
    assert len(stage.adapter.config.layers) == 4
    for i, layer in enumerate(stage.adapter.config.layers):
        path = layer.port.removeprefix("cross.")
        for part, own in (("to_k", stage.adapter.to_k), ("to_v", stage.adapter.to_v)):
            assert torch.equal(own[i].weight, weights[f"{path}.cross_attn.{part}.weight"])
    stage.turn(first_batch(made, stage), 0).total.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in stage.adapter.parameters())
    others = [part for name, part in stage.pipeline.parts.items().items() if name != f"adapters.{NAME}"]
    assert len(others) == 5 and all(p.grad is None for part in others for p in part.parameters())


def test_recomputed_blocks_have_the_same_gradients(start: Path, encoder: Path, tmp_path: Path) -> None:
    found = []
    for again in ("false", "true"):
        made = recipe(start, encoder, tmp_path / "run", f"gradient_checkpointing={again}")
        stage: Any = made.make_stage(Path())
        stage.turn(first_batch(made, stage), 0).total.backward()
        found.append({name: p.grad for name, p in stage.adapter.named_parameters()})
    assert_same(found[0], found[1])


def test_the_base_stays_and_the_file_comes_back(start: Path, encoder: Path, tmp_path: Path) -> None:
    before, plain = tensors(start), drawn(ldmkit.load(start))
    engine = Engine(recipe(start, encoder, tmp_path / "run", tokens=3), Path())
    stage: Any = engine.stage
    outcome = engine.run()
    assert outcome.model is not None and [path.name for path in outcome.model.iterdir()] == [FILE]
    keys = load_file(outcome.model / FILE)
    assert keys.keys() == {
        *(f"image_proj.{layer}.{kind}" for layer in ("proj", "norm") for kind in ("weight", "bias")),
        *(f"ip_adapter.{n}.to_{part}_ip.weight" for n in (1, 3, 5, 7) for part in "kv"),
    }
    assert keys["image_proj.proj.weight"].shape == (3 * 8, 12)
    with engine.averaged():
        want = drawn(stage.pipeline, **{"ip-image": picture()})
        assert not torch.equal(want, drawn(stage.pipeline, **{"ip-image": picture(1)})), "the picture counts"
        state = {name: tensor.clone() for name, tensor in stage.adapter.state_dict().items()}
    base_model = ldmkit.load(start)
    for file in (outcome.model, outcome.model / FILE):
        read = base_model.with_adapter_file(file, name=NAME, encoder=encoder)
        assert_same(dict(read.adapters[NAME].state_dict()), state)
        assert torch.equal(drawn(read, **{"ip-image": picture()}), want)
    assert torch.equal(drawn(base_model), plain)
    stage.pipeline.save(tmp_path / "whole")
    assert_same(before, {key: t for key, t in tensors(tmp_path / "whole").items() if key in before})


def test_a_run_in_two_pieces_is_the_same_run(start: Path, encoder: Path, tmp_path: Path) -> None:
    constant = "schedule.type=constant"
    train(recipe(start, encoder, tmp_path / "whole", constant))
    train(recipe(start, encoder, tmp_path / "pieces", constant, "steps=3"))
    train(recipe(start, encoder, tmp_path / "pieces", constant))
    assert_same(tensors(tmp_path / "whole" / "model"), tensors(tmp_path / "pieces" / "model"))


def test_it_goes_on_from_a_run(start: Path, encoder: Path, tmp_path: Path) -> None:
    train(recipe(start, encoder, tmp_path / "one", tokens=2))
    second: Any = recipe(start, encoder, tmp_path / "two", start=str(tmp_path / "one")).make_stage(Path())
    read = ldmkit.load(start).with_adapter_file(tmp_path / "one" / "model", encoder=encoder)
    given = {"ip-image": picture()}
    assert torch.equal(drawn(second.pipeline, **given), drawn(read, **given))
    assert all(p.requires_grad for p in second.adapter.parameters())


@pytest.mark.parametrize("dropped", ["image", "text", "both"])
def test_what_a_dropped_condition_becomes(start: Path, encoder: Path, tmp_path: Path, dropped: str) -> None:
    """A picture: an embedding of zeros through the projection; a text and boxes: what guidance takes for them."""
    made = recipe(start, encoder, tmp_path / "run", drop={**NO_DROPS, dropped: 1.0})
    stage: Any = made.make_stage(Path())
    batch, seen = first_batch(made, stage), []
    stage.pipeline.denoiser.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    stage.turn(batch, 0)
    (context,), conditions = seen, stage.turn.conditioning(batch)
    real, nulls = conditions.view(), conditions.view(conditions.names)
    gone = {f"{NAME}.image": dropped != "text", "context": dropped != "image"}
    for slot, now in gone.items():
        assert torch.equal(context.signals[slot].value, (nulls if now else real)[slot].value)
    keys, _ = context.adapters[NAME].kv["cross.mid.attn.blocks.0"]
    nothing = stage.adapter.to_k[-1](stage.adapter.projection(torch.zeros(1, 1, 12)))
    same = [torch.allclose(row[0], nothing[0], atol=1e-6) for row in keys]  # products of other numbers of rows
    assert all(same) if dropped != "text" else not any(same)


def test_shares_of_rows(start: Path, encoder: Path, tmp_path: Path) -> None:
    """0.05 each unless said: of 40000 rows, within five deviations of a binomial count; together with other rules."""
    stage: Any = recipe(start, encoder, tmp_path / "run", "objective.dropout.rates={layout: 0.5}").make_stage(Path())
    rows = 40_000
    kept = stage.turn.objective.dropout.kept(stage.turn.names, Draws(0, 0, range(rows)))
    image, text = ~kept["ip-image"], ~kept["text"]
    counts = [image & ~text, text & ~image, image & text]
    assert [float(count.float().mean()) for count in counts] == pytest.approx(
        [0.05] * 3, abs=5 * (0.0475 / rows) ** 0.5
    )
    assert stage.drop_rates == pytest.approx({"text": 0.1, "layout": 0.55, "ip-image": 0.1})
    assert float((~kept["layout"]).float().mean()) == pytest.approx(0.55, abs=0.0125)


def test_the_self_check_the_plan_and_previews(start: Path, encoder: Path, tmp_path: Path) -> None:
    made = recipe(start, encoder, tmp_path / "run", "previews.every=6", "previews.count=2", "previews.steps=2")
    assert [check for check in checked(made, Path()) if not check.passed] == []
    plan = make_plan(made, Path())
    learning = {line.name: line.trained for line in plan.parts}
    assert learning.pop(NAME) > 0 and not any(learning.values())
    wires = {line.input: line for line in plan.wiring}
    assert wires["ip-image"].dropped == pytest.approx(0.1) and wires["ip-image"].null != "never left out"
    train(made)
    assert (tmp_path / "run" / "previews" / "step-00000006.png").is_file()


def test_a_column_of_pictures(start: Path, encoder: Path, tmp_path: Path) -> None:
    """Pictures that are data, of any size, under another name; a sample without one is named."""
    folder, lines = tmp_path / "data", []
    (folder / "of").mkdir(parents=True)
    for i in range(4):
        picture(i).save(folder / f"{i}.png")
        picture(i + 9).resize((20 + i, 11)).save(folder / "of" / f"{i}.png")
        lines.append({"file_name": f"{i}.png", "text": "a tree", "who": f"of/{i}.png"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = (
        "data.extract={}", "data.inputs={who: ip-image}", "data.validation=null", "validation=null",
        f"data.train={{type: folder, config: {{folder: {folder}, missing: allow}}}}",
    )  # fmt: skip
    assert train(recipe(start, encoder, tmp_path / "run", *source)).step == 6
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, [*lines[:3], {**lines[3], "who": None}])))
    (folder / "of" / "3.png").unlink()  # a picture that nothing names would be a sample
    with pytest.raises(InputError, match=r"3\.png.*no 'ip-image'"):
        Engine(recipe(start, encoder, tmp_path / "other", *source), Path())


def test_a_cache_of_latents_keeps_the_pictures(start: Path, encoder: Path, tmp_path: Path) -> None:
    plain = train(recipe(start, encoder, tmp_path / "plain"))
    cached = train(recipe(start, encoder, tmp_path / "cached", f"data.cache.folder={tmp_path / 'c'}"))
    assert plain.model is not None and cached.model is not None
    assert_same(tensors(plain.model), tensors(cached.model))


@pytest.mark.parametrize(
    ("overrides", "section", "error", "said"),
    [
        ((), {"encoder": "nowhere"}, SourceError, r"ip_adapter\.encoder.*nowhere.*a folder"),
        ((), {"encoder": "."}, SourceError, "no image encoder"),
        ((), {"start": "nowhere"}, SourceError, "nowhere"),
        ((), {"start": "x", "tokens": 4}, SpecError, "tokens are those of `start`"),
        ((), {"tokens": 0}, SpecError, "tokens"),
        ((), {"drop": {"image": 0.7, "text": 0.4}}, SpecError, r"add up to 1\.15"),
        ((), {"drop": {"picture": 0.1}}, SpecError, "picture"),
        (("objective.dropout.rates.ip-imagee=0.1",), {}, CompositionError, "did you mean 'ip-image'"),
        (("data.extract={}",), {}, LdmkitError, "no 'ip-image'"),
    ],
)
def test_recipes_that_make_no_sense(
    start: Path, encoder: Path, tmp_path: Path, overrides: tuple[str, ...], section: dict[str, Any],
    error: type[Exception], said: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=said):
        Engine(recipe(start, encoder, tmp_path / "run", *overrides, **section), Path())


def test_a_network_without_cross_attention(encoder: Path, tmp_path: Path) -> None:
    network = {
        "channels": 3,
        "widths": [8, 16],
        "blocks": 1,
        "norm_groups": 4,
        "heads": 2,
        "attention": ["none", "self"],
    }
    plain = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}), denoiser=tiny_parts.part("denoiser", "unet", network, seed=1),
        process=ldmkit.get("process", "discrete")(), conditioners={}, defaults={"size": (16, 16)},
    ).save(tmp_path / "plain")  # fmt: skip
    with pytest.raises(CompositionError, match=r"no cross-attentions.*a U-Net with"):
        recipe(plain, encoder, tmp_path / "run").make_stage(Path())


def test_a_file_of_something_else(start: Path, encoder: Path, tmp_path: Path) -> None:
    edges = {"stage": "controlnet", **base(tmp_path / "edges"), "model": {"start": str(start)}, "probe": None}
    edges["data"] = {**edges["data"], "extract": {"hint": {"type": "canny"}}}
    train(parse_recipe({**edges, "steps": 1, "checkpoints": {"every": 1}, "validation": None}))
    with pytest.raises(CompositionError, match=r"ip_adapter\.start.*no IP-Adapter in .*edges"):
        recipe(start, encoder, tmp_path / "run", start=str(tmp_path / "edges")).make_stage(Path())


def test_beside_an_adapter_that_the_base_has(start: Path, encoder: Path, tmp_path: Path) -> None:
    """The base's own keeps its input and every bit; a LoRA's stage, too, may drop the picture of such a base."""
    train(recipe(start, encoder, tmp_path / "one"))
    both = ldmkit.load(start).with_adapter_file(tmp_path / "one" / "model", name=NAME, encoder=encoder, regions=0)
    before = tensors(both.save(tmp_path / "both"))
    second = "data.extract={ip-image: {type: tile}, ip-image-2: {type: blur}}"
    made = recipe(tmp_path / "both", encoder, tmp_path / "two", second)
    stage: Any = made.make_stage(Path())
    assert stage.prompt == "ip-image-2" and stage.turn.names == ("text", "layout", "ip-image", "ip-image-2")
    train(made)
    assert_same(before, tensors(tmp_path / "both"))
    changes = {
        "stage": "lora",
        "lora": {"rank": 2},
        **base(tmp_path / "lora"),
        "model": {"start": str(tmp_path / "both")},
    }
    changes["data"] = {**changes["data"], "extract": {"ip-image": {"type": "tile"}}}
    changes |= {"objective": {"dropout": {"rates": {"ip-image": 0.3}}}, "probe": None}
    assert [check for check in checked(parse_recipe(changes), Path()) if not check.passed] == []
