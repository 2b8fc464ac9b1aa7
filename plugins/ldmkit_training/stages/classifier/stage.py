"""The training stage of a classifier of noisy latents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import (
    Batch,
    Classifier,
    Codec,
    CompositionError,
    Draws,
    Example,
    InputError,
    LazyTensor,
    Loss,
    PartSpec,
    Process,
    Stage,
    StageSetup,
    Turn,
    column,
    load_classifier,
    part_spec,
)
from ldmkit.models.compose import build
from ldmkit.models.saving import check_folder, save_part
from ldmkit.models.source import part_file
from ldmkit.models.weights import check
from ldmkit_training.before.located import locate_model
from ldmkit_training.stages.classifier.section import ClassifierConfig, ClassifierObjective, ClassifierSection
from ldmkit_training.stages.denoiser.model import load_frozen_codec
from ldmkit_training.stages.denoiser.times import UniformTimes
from ldmkit_training.stages.designed import learn
from ldmkit_training.stages.latents import latents_of
from ldmkit_training.stages.taken_over import check_meaning, spec_differences

_UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2, "attention": ["none", "none"]}
QUARTERS = 4


class ClassifierTurn(Turn):
    """Cross-entropy at one noise level per row.

    Args:
        classifier: the classifier to train.
        objective: the loss to minimise.
        process: the classifier's process, from which noise levels are drawn.
        codec: frozen, and not a submodule.
    """

    def __init__(self, classifier: Classifier, objective: ClassifierObjective, process: Process, codec: Codec):
        super().__init__()
        self.classifier, self.objective, self.process = classifier, objective, process
        self._read = (codec,)

    def forward(self, batch: Batch, step: int) -> Loss:
        sigma = self.objective.times.sigmas(self.process, batch.draws)
        logits, wanted = self.judged(batch, sigma, "noise")
        loss = F.cross_entropy(logits, wanted, label_smoothing=self.objective.smoothing)
        right = (logits.argmax(1) == wanted).float().mean()
        return Loss(loss, {"accuracy": right.detach()}, {"cross_entropy": loss})

    def judged(self, batch: Batch, sigma: Sequence[float], purpose: str) -> tuple[Tensor, Tensor]:
        """Logits (B,classes) of the batch's noisy latents, and the classes (B,)."""
        device = self.classifier.device
        x0 = latents_of(batch, self._read[0], device, sample=self.objective.posterior == "sample")
        noise = batch.draws.normal(purpose, x0.shape[1:]).to(x0)
        return self.classifier(x0 + column(sigma, x0) * noise, sigma), self.labels(batch).to(device)

    def labels(self, batch: Batch) -> Tensor:
        """The classes of the rows: (B,) int64.

        Raises:
            InputError: `missing-label`, `unknown-class`; the sample is named.
        """
        name, found = self.objective.label, []
        for sample, inputs in zip(batch.ids, batch.inputs, strict=True):
            if name not in inputs:
                fits = f"an input {name!r} of every sample"
                raise InputError("missing-label", "this sample has no class", where=sample, fits=fits)
            found.append(self.classifier.number(inputs[name], f"{sample}: {name}"))
        return torch.tensor(found)

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        return {"classifier": list(self.classifier.parameters())}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {"cross_entropy": frozenset({"classifier"})}


class ClassifierStage(Stage):
    """Trains a classifier for `ClassifierGuidance`.

    Args:
        model: the classifier, and the codec whose latents it reads.
        objective: what is minimised.
        folder: the recipe's, from which relative paths start.

    Raises:
        CompositionError: `classifier-channels`: its U-Net is for latents of another codec.
    """

    api: ClassVar[int] = 1
    Config = ClassifierConfig
    codec: Codec
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"model": {"codec": {"type": "identity"}, "config": {"classes": 3, "unet": _UNET}}},
            ({"label": 0}, {"label": 2}, {"label": 1}),
        ),
    )

    @classmethod
    def build(cls, config: ClassifierConfig, setup: StageSetup) -> Self:
        """See `ldmkit.Stage`."""
        return cls(config.model, config.objective, setup.folder)

    def __init__(self, model: ClassifierSection, objective: ClassifierObjective, folder: Path):
        self.codec = load_frozen_codec(model.codec, folder)
        self.classifier = _classifier(model, folder)
        if self.classifier.channels != self.codec.channels:
            what = (
                f"the codec's latents have {self.codec.channels} channels, its U-Net takes {self.classifier.channels}"
            )
            raise CompositionError("classifier-channels", what, where="model.config.unet.channels")
        if (process := self.classifier.process) is None:
            what = f"{type(self.classifier).__name__} has no process to draw noise levels from"
            raise CompositionError("not-trainable", what, where="model.type")
        self.turn = ClassifierTurn(self.classifier, objective, process, self.codec)
        self.turns: Mapping[str, Turn] = {"classifier": self.turn}
        self.inputs = frozenset({objective.label})

    def parsed(self, inputs: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        name = self.turn.objective.label
        return {name: self.classifier.number(inputs[name], f"{where}: {name}")} if name in inputs else {}

    @property
    def averaged(self) -> nn.Module:
        return self.classifier

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        return {"codec": self.codec}

    @classmethod
    def check_saved(cls, folder: Path) -> None:
        check_folder(folder, part_file("classifier"))

    def save(self, folder: Path) -> None:
        """A classifier alone, for `ldmkit.load_classifier` and `ClassifierGuidance(model=...)`."""
        save_part("classifier", self.classifier, folder)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """`loss` and `accuracy`, over all noise levels and (`accuracy_q1` ... low noise first) by quarters of the
        process's own distribution, with the same noise at every call."""
        training = self.classifier.training
        self.classifier.eval()
        losses, right, quarters = [], [], []
        for index, batch in enumerate(batches):
            draws = Draws(batch.draws.seed, index, batch.draws.rows)
            quantiles = UniformTimes(stratified=True).quantiles(draws, "validation")
            fixed = replace(batch, draws=draws)
            sigma = [self.turn.process.sigma(u) for u in quantiles]
            logits, wanted = self.turn.judged(fixed, sigma, "validation")
            losses.append(F.cross_entropy(logits, wanted, reduction="none").double().cpu())
            right.append((logits.argmax(1) == wanted).double().cpu())
            quarters += [min(int(u * QUARTERS), QUARTERS - 1) for u in quantiles]
        self.classifier.train(training)
        if not losses:
            return {}
        hits, of = torch.cat(right), torch.tensor(quarters)
        figures = {"loss": float(torch.cat(losses).mean()), "accuracy": float(hits.mean())}
        present = [q for q in range(QUARTERS) if bool((of == q).any())]
        return figures | {f"accuracy_q{q + 1}": float(hits[of == q].mean()) for q in present}


def _classifier(model: ClassifierSection, folder: Path) -> Classifier:
    spec = PartSpec(type=model.type, config=model.config)
    classifier: Classifier = build("classifier", spec, "model")
    if model.start is not None:
        path = locate_model(model.start, folder, "model.start")
        theirs = load_classifier(path, dtype="float32")
        tensors = theirs.state_dict()
        check(classifier, {name: LazyTensor.of(tensor) for name, tensor in tensors.items()}, f"model.start {path}")
        classifier.load_state_dict(tensors)
        check_meaning(
            spec_differences("classifier", part_spec("classifier", theirs), spec, "model"), "model", path, learns=True
        )
    learn(classifier)
    return classifier
