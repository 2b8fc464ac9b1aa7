"""A classifier of noisy latents: trained, saved, and guiding samples to a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.flow import Flow
from ldmkit_processes.guidance.classifier import ClassifierGuidance
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.grids.sigmas import Karras
from ldmkit_training.stages.classifier.section import ClassifierObjective, ClassifierSection
from ldmkit_training.stages.classifier.stage import ClassifierStage
from tiny import base, train
from torch import Tensor

import ldmkit
from ldmkit import Batch, Draws
from ldmkit.cli.words import parse_guidance

NAMES = ("red", "green", "blue")
COLOURS = torch.tensor([[0.6, -0.4, -0.4], [-0.4, 0.6, -0.4], [-0.4, -0.4, 0.6]])
SPREAD = 0.4
"""Pictures of a class are its colour everywhere, and this much noise: no one pixel tells the class."""
UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2, "attention": ["none", "none"]}


def section(**config: Any) -> ClassifierSection:
    made = {"unet": UNET, "classes": 3, "names": NAMES, **config}
    return ClassifierSection.of({"codec": {"type": "identity"}, "config": made})


def stage(**config: Any) -> ClassifierStage:
    torch.manual_seed(0)
    return ClassifierStage(section(**config), ClassifierObjective(), Path())


def batch(step: int, rows: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(3, (rows,), generator=generator)
    images = COLOURS[labels][:, :, None, None] + SPREAD * torch.randn(rows, 3, 8, 8, generator=generator)
    inputs = [{"label": NAMES[k] if row % 2 else k} for row, k in enumerate(labels.tolist())]
    ids = tuple(f"sample {row}" for row in range(rows))
    return Batch(ids, images, None, None, inputs, (8, 8), Draws(0, step, tuple(range(rows))))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a classifier after 120 steps."""
    made, folder = stage(), tmp_path_factory.mktemp("classifier") / "model"
    optimiser = torch.optim.AdamW(made.turn.parameters(), lr=3e-3)
    for step in range(120):
        optimiser.zero_grad()
        made.turn(batch(step), step).total.backward()
        optimiser.step()
    figures = made.validate([batch(1000 + k, 64) for k in range(4)])
    assert figures["accuracy_q1"] > 0.95, "at little noise the colour is plain"
    assert figures["accuracy_q1"] > figures["accuracy_q4"], "and at much noise it is not"
    assert figures == made.validate([batch(1000 + k, 64) for k in range(4)]), "same noise at every call"
    made.save(folder)
    return folder


class Evaluate:
    """The exact x0 estimate for the mixture of all three classes."""

    names: tuple[str, ...] = ()

    def __init__(self, process: ldmkit.Process):
        self.process = process

    def __call__(self, x: Tensor, sigma: float, *views: Any) -> list[Tensor]:
        means, both = COLOURS[:, :, None, None], SPREAD**2 + sigma**2
        logits = -((x[:, None] - means) ** 2).sum((2, 3, 4)) / (2 * both)
        each = (means * sigma**2 + x[:, None] * SPREAD**2) / both
        return [(logits.softmax(1)[:, :, None, None, None] * each).sum(1)]

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def share(guidance: ldmkit.Guidance, process: ldmkit.Process, wanted: int) -> float:
    """Share of 48 samples that end in a class."""
    evaluate = Evaluate(process)
    sigmas = Karras().sigmas(process, 20)
    x = sigmas[0] * torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    *_, last = DDIM().steps(lambda x, s: guidance(evaluate, x, s), x, sigmas, lambda i: x)
    means = last.x.mean((2, 3))
    return float((((means[:, None] - COLOURS) ** 2).sum(2).argmin(1) == wanted).float().mean())


@pytest.mark.parametrize("process", [Discrete(), Flow()], ids=["trained-on", "another"])
def test_guidance_by_a_saved_classifier_moves_samples_to_the_class(trained: Path, process: ldmkit.Process) -> None:
    """A third of the samples without it; with it nearly all, in the process it was trained with or any other."""
    for number, name in enumerate(NAMES):
        guided = ClassifierGuidance(model=str(trained), labels=(name,), scale=3.0)
        assert share(ldmkit.get("guidance", "none")(), process, number) < 0.6
        assert share(guided, process, number) > 0.85


def test_it_is_written_as_the_command_line_and_a_recipe_write_it(trained: Path, class_pipe: ldmkit.Pipeline) -> None:
    text = f'classifier:model={trained},labels=["green"],scale=20'
    assert (ldmkit.load_classifier(trained)).names == NAMES
    plain = class_pipe(text_free(class_pipe), guidance="none", steps=4, seeds=[3])
    made = class_pipe(text_free(class_pipe), guidance=parse_guidance(text), steps=4, seeds=[3])
    again = class_pipe(text_free(class_pipe), guidance=parse_guidance(text), steps=4, seeds=[3])
    assert torch.equal(made.images, again.images) and not torch.equal(made.images, plain.images)


def text_free(pipe: ldmkit.Pipeline) -> dict[str, Any]:
    """Some input of a class-conditional pipeline."""
    return {"label": 1}


def test_labels_are_checked_by_name(trained: Path) -> None:
    x = torch.zeros(1, 3, 8, 8)
    for label, fits in (("gren", "green"), (3, "red"), (-1, "red")):
        guidance = ClassifierGuidance(model=str(trained), labels=(label,))
        with pytest.raises(ldmkit.InputError, match=fits):
            guidance(Evaluate(Discrete()), x, 1.0)
    with pytest.raises(ldmkit.CompositionError, match="classifier-channels"):
        ldmkit.load_classifier(trained)(torch.zeros(1, 4, 8, 8), [1.0])
    with pytest.raises(ldmkit.SourceError, match="classifier-only"):
        ldmkit.load_codec(trained)
    with pytest.raises(ldmkit.SpecError, match="names of classes"):
        ClassifierGuidance(classifier=lambda z, t: z.mean((2, 3)), labels=("red",))(Evaluate(Discrete()), x, 1.0)


def test_a_sample_without_a_class_or_with_an_unknown_one_is_named() -> None:
    made, good = stage(), batch(0, 2)
    for inputs, match in (
        ([{"label": 1}, {}], "sample 1"),
        ([{"label": "grue"}, {"label": 1}], "sample 0.*(blue|green)"),
    ):
        bad = Batch(good.ids, good.images, None, None, inputs, (8, 8), good.draws)
        with pytest.raises(ldmkit.InputError, match=match):
            made.turn(bad, 0)


def test_parts_reach_the_classifier_and_cached_latents_give_the_same_loss() -> None:
    made, given = stage(), batch(0)
    loss = made.turn(given, 0)
    torch.testing.assert_close(sum(loss.parts.values()), loss.total)
    assert made.turn.reaches().keys() == loss.parts.keys()
    cached = Batch(given.ids, None, given.images, None, given.inputs, (8, 8), given.draws)
    assert torch.equal(made.turn(cached, 0).total, loss.total)
    assert 0.5 < float(loss.total) < 2.5, "near log 3 at first"


@pytest.mark.parametrize(
    "config",
    [{"names": ("a", "b")}, {"names": ("a", "a", "b")}, {"pool_heads": 3}, {"unet": {**UNET, "in_channels": 6}}],
)
def test_configs_that_contradict_themselves_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ldmkit.SpecError):
        stage(**config)


def test_the_codec_must_fit_and_be_trained() -> None:
    with pytest.raises(ldmkit.CompositionError, match="classifier-channels"):
        stage(unet={**UNET, "channels": 4})
    bad = ClassifierSection.of({"codec": {"type": "kl"}, "config": {"unet": UNET, "classes": 3}})
    with pytest.raises(ldmkit.CompositionError, match="untrained-codec"):
        ClassifierStage(bad, ClassifierObjective(), Path())


def test_a_recipe_trains_one(tmp_path: Path) -> None:
    from ldmkit_miniworld.vocabulary import CLASSES
    from ldmkit_training.before.recipe import parse_recipe

    data = base(tmp_path / "run") | {"stage": "classifier"}
    data["model"] = {
        "codec": {"type": "identity"},
        "config": {"unet": UNET, "classes": len(CLASSES), "names": list(CLASSES)},
    }
    outcome = train(parse_recipe(data))
    assert outcome.model is not None and ldmkit.load_classifier(tmp_path / "run" / "model").names == tuple(CLASSES)
    again = ClassifierStage(
        ClassifierSection.of({**data["model"], "start": "run"}), ClassifierObjective(), tmp_path
    ).classifier
    saved = ldmkit.load_classifier(tmp_path / "run" / "model").state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in again.state_dict().items())
