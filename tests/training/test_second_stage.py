"""The denoiser stage: composed from a recipe's section, trained with all kinds of conditions, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_training.stages.denoiser.model import compose_model
from ldmkit_training.stages.denoiser.model_section import ModelSection
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoiser.stage import DenoiserStage
from torch import Tensor

import ldmkit
from ldmkit import Batch, Draws
from ldmkit.errors import CompositionError, LdmkitError, SourceError, SpecError, WeightsError

SIDE = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "house", "tree"]
ROWS: list[dict[str, Any]] = [
    {"text": "a red house", "label": 0, "layout": [{"label": 1, "box": [0.1, 0.2, 0.5, 0.6]}]},
    {"text": "a blue tree", "label": 1, "semantic": torch.ones(SIDE, SIDE, dtype=torch.long)},
    {"layout": [{"label": 0, "box": [0, 0, 1, 1]}, {"label": 2, "box": [0, 0, 0.5, 1]}], "label": 1},
    {"text": "a red tree", "semantic": torch.zeros(SIDE, SIDE, dtype=torch.long)},
]
UNET = {
    "channels": 2, "in_channels": 5, "widths": [8, 16], "blocks": 1, "attention": ["none", "cross"],
    "norm_groups": 4, "heads": 2, "context_dim": 8, "vector": "identity", "time_dim": 16,
}  # fmt: skip
TEXT = {
    "vocab_size": 9, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4, "max_length": 8, "start": 2, "end": 3, "pad": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder, with a trained codec (in a pipeline) and a vocabulary."""
    made = tmp_path_factory.mktemp("recipe")
    (made / "words").mkdir()
    (made / "words" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torch.manual_seed(4)
    config = {"widths": [4, 4], "norm_groups": 2, "blocks": 1, "z_channels": 2, "mid_attention": "none"}
    ldmkit.Pipeline.of(
        codec=ldmkit.get("codec", "kl")(config),
        denoiser=ldmkit.get("denoiser", "unet")({"channels": 2, "widths": [4], "norm_groups": 2, "heads": 1}),
        process=ldmkit.get("process", "discrete")(),
    ).save(made / "first")
    return made


def section(**changes: Any) -> ModelSection:
    data = {
        "codec": {"from": "first"},
        "denoiser": {"type": "unet", "config": UNET},
        "process": {"type": "discrete", "config": {"prediction": "v", "zero_terminal_snr": True}},
        "conditioners": conditioners(),
        "defaults": {"size": [SIDE, SIDE], "steps": 2, "grid": {"type": "trailing"}},
    }
    return ModelSection.of({**data, **changes}, "model")


def conditioners(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {
        "text": {"type": "ldm-text", "assets": "words", "config": TEXT},
        "label": {"type": "label", "config": {"n_classes": 4, "null_class": 3, "emit": "vector", "dim": 16}},
        "layout": {"type": "layout-boxes", "config": {"n_classes": 3, "dim": 8, "frequencies": 2}},
        "semantic": {"type": "semantic", "config": {"n_classes": 2, "dim": 3, "stages": 1}},
    }
    return {name: parts[name] | changes.get(name, {}) for name in parts}


def stage(folder: Path, model: ModelSection | None = None, **options: Any) -> DenoiserStage:
    objective = DenoiserObjective.of(options.pop("objective", {}), "objective")
    return DenoiserStage(model or section(), objective, folder, **options)


def batch(step: int = 0, *, cached: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(11)
    images = torch.rand(4, 3, SIDE, SIDE, generator=generator) * 2 - 1
    latents = torch.randn(4, 2, 8, 8, generator=generator)
    draws = Draws(0, step, (0, 1, 2, 3))
    if cached:
        return Batch(("a", "b", "c", "d"), None, latents, torch.full_like(latents, 0.1), ROWS, (SIDE, SIDE), draws)
    return Batch(("a", "b", "c", "d"), images, None, None, ROWS, (SIDE, SIDE), draws)


def state(stage: DenoiserStage) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in stage.averaged.state_dict().items()}


def train(stage: DenoiserStage, steps: int, lr: float = 3e-3, fixed: bool = False) -> list[float]:
    trained = [p for p in stage.turn.parameters() if p.requires_grad]
    optimiser, losses = torch.optim.AdamW(trained, lr=lr), []
    for step in range(steps):
        loss = stage.turn(batch(0 if fixed else step), step)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append(float(loss.total.detach()))
    return losses


def test_one_batch_can_be_learnt_with_text_class_layout_and_map(folder: Path) -> None:
    losses = train(stage(folder), 60, lr=1e-2, fixed=True)
    assert losses[0] > 0.8
    assert min(losses[-5:]) < 0.4 * losses[0]


def test_every_trained_part_gets_a_gradient_and_no_other(folder: Path) -> None:
    made = stage(folder, section(conditioners=conditioners(layout={"train": False})))
    train(made, 3)  # past the zero-initialised layers
    made.turn.zero_grad()
    made.turn(batch(), 0).total.backward()
    groups = made.turn.groups()
    assert groups.keys() == {"denoiser", "text", "label", "semantic"}
    assert made.turn.reaches() == {"simple": frozenset(groups)}
    assert all(any(p.grad is not None and bool(p.grad.any()) for p in group) for group in groups.values())
    assert made.frozen.keys() == {"codec", "layout"}
    assert not any(p.requires_grad or p.grad is not None for part in made.frozen.values() for p in part.parameters())
    assert not any(module.training for part in made.frozen.values() for module in part.modules())
    trained = {id(p) for group in groups.values() for p in group}
    assert trained == {id(p) for p in made.turn.parameters()} == {id(p) for p in made.averaged.parameters()}


def test_frozen_parts_stay_what_they_are(folder: Path) -> None:
    made = stage(folder, section(conditioners=conditioners(text={"train": False})))
    before = {n: {k: t.clone() for k, t in part.state_dict().items()} for n, part in made.frozen.items()}
    assert before.keys() == {"codec", "text"}
    train(made, 2)
    for name, part in made.frozen.items():
        assert all(torch.equal(t, before[name][k]) for k, t in part.state_dict().items())


def test_what_is_saved_is_what_was_trained(folder: Path, tmp_path: Path) -> None:
    made = stage(folder)
    train(made, 2)
    made.save(tmp_path / "model")
    loaded = ldmkit.load(tmp_path / "model")
    inputs = {"text": "a red house", "label": 1}
    want = made.pipeline(inputs, seeds=[1]).images
    assert torch.equal(loaded(inputs, seeds=[1]).images, want)
    again = stage(folder, section(start=str(tmp_path / "model")), seed=9)
    assert all(torch.equal(t, state(made)[name]) for name, t in state(again).items())
    whole = stage(folder, ModelSection(start=str(tmp_path / "model")))  # the recipe names no part: all from there
    assert whole.frozen.keys() == {"codec", "text", "label", "layout", "semantic"}
    assert torch.equal(whole.predict(batch()), made.predict(batch()))


def test_first_weights_follow_from_the_seed_and_the_parts_name(folder: Path) -> None:
    before = torch.get_rng_state()
    one, same, other = stage(folder), stage(folder), stage(folder, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    few = {"label": conditioners()["label"], "text": conditioners()["text"]}
    unet = UNET | {"in_channels": 2}
    fewer = state(stage(folder, section(conditioners=few, denoiser={"type": "unet", "config": unet})))
    for name, tensor in state(one).items():
        assert torch.equal(tensor, state(same)[name])
        if name.startswith("part-text"):
            assert torch.equal(tensor, fewer[name])
    assert any(not torch.equal(t, state(other)[name]) for name, t in state(one).items())


def test_latents_cached_or_encoded_here_are_the_same(folder: Path) -> None:
    made = stage(folder)
    given = batch(3, cached=False)
    codec = made.pipeline.codec
    mode = codec.encode(given.images)
    one = codec.encode(given.images, torch.ones_like(mode))
    cached = Batch(given.ids, None, mode, one - mode, ROWS, given.size, given.draws)
    with torch.autocast("cpu", torch.bfloat16):  # the codec keeps its own precision
        assert torch.allclose(made.turn.latents(given), made.turn.latents(cached), atol=1e-6)
    assert not torch.allclose(made.turn.latents(given), mode, atol=1e-3)
    at_mode = stage(folder, objective={"posterior": "mode"})
    assert torch.equal(at_mode.turn.latents(cached), mode)


def test_validation_is_the_same_every_time(folder: Path) -> None:
    made = stage(folder, objective={"dropout": {"rates": {"text": 0.9}}})
    first = made.validate([batch(0), batch(1)])
    assert first.keys() == {"loss", "loss_q1", "loss_q2", "loss_q3", "loss_q4"}
    assert made.validate([batch(5), batch(7)]) == first  # the draws' step does not matter
    assert made.turn.trained.training
    train(made, 2)
    assert made.validate([batch(0), batch(1)])["loss"] != first["loss"]
    assert made.validate([]) == {}


def test_predictions_differ_by_their_conditions_only(folder: Path) -> None:
    made = stage(folder)
    train(made, 2)
    own = made.predict(batch())
    given = made.turn.conditioning(batch())
    assert torch.equal(made.predict(batch(), given.view()), own)
    for name in ("text", "label", "layout", "semantic"):
        assert not torch.equal(made.predict(batch(), given.view({name})), own)


@pytest.mark.parametrize("amount", ["recomputed", "bfloat16"])
def test_gradients_with_recomputation_and_in_bfloat16(folder: Path, amount: str) -> None:
    """Recomputed: bit for bit. Autocast: 8 bits of mantissa, 5 % of the norm."""
    plain, other = stage(folder), stage(folder, gradient_checkpointing=amount == "recomputed")
    assert state(plain).keys() == state(other).keys()
    train(plain, 1)
    train(other, 1)
    plain.turn.zero_grad()
    other.turn.zero_grad()
    plain.turn(batch(1), 1).total.backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=amount == "bfloat16"):
        loss = other.turn(batch(1), 1)
    loss.total.backward()
    pairs = list(zip(plain.turn.parameters(), other.turn.parameters(), strict=True))
    if amount == "recomputed":
        assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
    off = sum(float((a.grad - b.grad).square().sum()) for a, b in pairs)
    assert off**0.5 <= 0.05 * sum(float(a.grad.square().sum()) for a, _ in pairs) ** 0.5


def test_a_controlnet_alone_is_trained(folder: Path, tmp_path: Path) -> None:
    made = stage(folder)
    train(made, 2)
    made.save(tmp_path / "base")
    data = {
        "start": str(tmp_path / "base"),
        "adapters": {"outline": {"type": "controlnet", "config": {"hint_widths": [4, 4]}}},
        "conditioners": {"outline-hint": {"type": "hint", "slot": "outline.hint", "input": "outline", "null": "keep"}},
    }
    copy = stage(folder, ModelSection.of(data, "model"))
    assert copy.turn.groups().keys() == {"outline"} and "denoiser" in copy.frozen
    plain = batch()
    hints = [{**row, "outline": torch.rand(3, SIDE, SIDE)} for row in ROWS]
    hinted = Batch(plain.ids, None, plain.latents, plain.deviation, hints, plain.size, plain.draws)
    assert torch.equal(copy.predict(hinted), made.predict(plain))  # new, it changes nothing
    optimiser = torch.optim.AdamW(copy.turn.parameters(), lr=1e-2)
    for step in range(2):
        copy.turn(hinted, step).total.backward()
        optimiser.step()
    assert not torch.equal(copy.predict(hinted), made.predict(plain))
    assert torch.equal(copy.predict(plain), made.predict(plain))  # rows without a hint are left alone
    copy.save(tmp_path / "model")
    assert "outline" in ldmkit.load(tmp_path / "model").adapters


WRONG: list[tuple[dict[str, Any], type[LdmkitError], str]] = [
    ({"codec": {"from": "frist"}}, SourceError, "frist"),
    ({"codec": {"type": "kl", "config": {}}}, CompositionError, "from"),
    ({"codec": {"type": "identity"}}, CompositionError, "3 latent channels"),
    ({"conditioners": conditioners(text={"config": TEXT | {"dim": 12}})}, CompositionError, "'text' has dim 12"),
    ({"conditioners": conditioners(text={"config": TEXT | {"pad": 4}})}, SourceError, "pad"),
    ({"conditioners": conditioners(text={"assets": "wrods"})}, SourceError, "wrods"),
    ({"conditioners": conditioners(label={"slot": "contxt"})}, CompositionError, "contxt"),
    ({"conditioners": conditioners(label={"trian": True})}, SpecError, "trian"),
    ({"conditioners": conditioners(label={"from": "first"})}, CompositionError, "no conditioner 'label'"),
    ({"denoiser": None}, SpecError, "denoiser"),
    ({"start": "first"}, WeightsError, "denoiser"),
]


@pytest.mark.parametrize(("changes", "error", "named"), WRONG)
def test_models_that_cannot_be(folder: Path, changes: dict[str, Any], error: type[LdmkitError], named: str) -> None:
    with pytest.raises(error) as caught:
        compose_model(section(**changes), folder)
    assert named in str(caught.value)


def test_wrong_stages(folder: Path) -> None:
    with pytest.raises(CompositionError, match="no condition 'txet'"):
        stage(folder, objective={"dropout": {"rates": {"txet": 0.1}}})
    frozen = {name: {"train": False} for name in conditioners()}
    nothing = {"type": "unet", "config": UNET, "train": False}
    with pytest.raises(CompositionError, match="every part is frozen"):
        stage(folder, section(conditioners=conditioners(**frozen), denoiser=nothing))
