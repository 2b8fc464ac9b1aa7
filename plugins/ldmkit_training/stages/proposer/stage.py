"""The training stage of a proposer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ldmkit import (
    Batch,
    CompositionError,
    Conditioner,
    Example,
    Loss,
    PartSpec,
    Pipeline,
    Proposing,
    StageSetup,
    Turn,
    WeightsError,
    build_value,
    load,
    part_spec,
    suggest,
)
from ldmkit.models.abilities import able, proposer_of
from ldmkit.models.compose import build, fit
from ldmkit.run.inputs import input_name, parse_rows
from ldmkit_training.before.located import assets_folder, locate_model
from ldmkit_training.stages.designed import learn
from ldmkit_training.stages.given import check_given
from ldmkit_training.stages.pipeline import PipelineStage
from ldmkit_training.stages.proposer.section import ProposerConfig, ProposerSection
from ldmkit_training.stages.taken_over import asset_differences, asset_digests, check_meaning, spec_differences


class ProposerTurn(Turn):
    """The sum of the conditioner's own losses on a batch's inputs; pictures and latents are not used.

    Args:
        pipeline: read only.
        conditioner: of the pipeline; only its proposer is trained.
        name: of its input, which every sample must have.
    """

    def __init__(self, pipeline: Pipeline, conditioner: Proposing, name: str):
        super().__init__()
        self.proposer = conditioner.proposer
        self._read = (pipeline, conditioner)
        self.name = name

    def forward(self, batch: Batch, step: int) -> Loss:
        losses = self.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        return Loss(total, {name: part.detach() for name, part in losses.items()}, {"proposal": total})

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """By name, as `ldmkit.Proposing.proposal_losses`.

        Raises:
            InputError: `missing-input`; the sample is named.
        """
        pipeline, conditioner = self._read
        check_given(batch, self.name)
        parsed = parse_rows(pipeline.parts, pipeline.wiring, batch.inputs, "inputs")
        return conditioner.proposal_losses(parsed, self.name)

    def groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        return {"proposer": list(self.parameters())}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {"proposal": frozenset({"proposer"})}


_BOX = {"label": 1, "box": [0.25, 0.25, 0.75, 1.0]}
_UNET = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
_UNET |= {"attention": ["none", "cross"], "context_dim": 8, "context_join": "length"}
_WORDS = {"vocab_size": 16, "start": 2, "end": 3, "pad": 0, "dim": 8, "layers": 1, "heads": 2, "head_dim": 4}
_PROPOSER = {"vocab_size": 16, "pad": 0, "length": 8, "bins": 8, "width": 8, "layers": 1, "heads": 2}
_CONDITIONERS = {
    "text": {"type": "ldm-text", "config": {**_WORDS, "max_length": 8}},
    "layout": {"type": "layout-proposed", "config": {"n_classes": 3, "dim": 8, "proposer": _PROPOSER}},
}


class ProposerStage(PipelineStage):
    """Trains the part of a conditioner that generates its input if the caller gives none (`ldmkit.Proposing`).

    Args:
        model: the pipeline, and its conditioner.
        folder: the recipe's, from which relative paths start.

    Raises:
        CompositionError: `not-trainable`: a conditioner without a proposer.
        SourceError, WeightsError: of the pipeline to start from.
    """

    api: ClassVar[int] = 1
    Config = ProposerConfig
    reads_images = False
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            {"model": {"start": "start", "conditioner": "layout"}},
            ({"text": [2, 7, 9, 3], "layout": [_BOX]}, {"text": [2, 8, 3], "layout": [_BOX, {**_BOX, "label": 0}]}),
        ),
    )

    @classmethod
    def write_example(cls, folder: Path) -> None:
        """The pipeline that the example starts from: text and boxes."""
        parts = {name: build("conditioner", PartSpec.of(spec), name) for name, spec in _CONDITIONERS.items()}
        Pipeline.of(
            codec=build("codec", PartSpec(type="identity"), "codec"),
            denoiser=build("denoiser", PartSpec(type="unet", config=_UNET), "denoiser"),
            process=build_value("process", PartSpec(type="flow"), "process"),
            conditioners=parts,
            defaults={"size": (16, 16)},
        ).save(folder / "start")

    @classmethod
    def build(cls, config: ProposerConfig, setup: StageSetup) -> Self:
        """See `ldmkit.Stage`."""
        return cls(config.model, setup.folder)

    def __init__(self, model: ProposerSection, folder: Path):
        self.read(_pipeline(model, folder))
        conditioner = self.pipeline.conditioners[model.conditioner]
        proposing = able(conditioner, Proposing)
        if proposing is None or proposing.proposer is None:
            what = f"{type(conditioner).__name__} has no proposer to train"
            raise CompositionError("not-trainable", what, where="model.type", fits="a type that proposes its input")
        learn(conditioner)
        trained = [p for p in proposing.proposer.parameters() if p.requires_grad]
        for part in self.pipeline.parts.items().values():
            part.requires_grad_(False).eval()
        for parameter in trained:
            parameter.requires_grad_(True)
        proposing.proposer.train()
        name = input_name(model.conditioner, self.pipeline.wiring[model.conditioner])
        self.turn = ProposerTurn(self.pipeline, proposing, name)
        self.turns: Mapping[str, Turn] = {"proposer": self.turn}
        others = {n: part for n, part in self.pipeline.parts.items().items() if part is not conditioner}
        self._frozen = {n.rpartition(".")[2]: part for n, part in others.items()}

    @property
    def averaged(self) -> nn.Module:
        proposer = self.turn.proposer
        assert proposer is not None, "checked when the stage was built"
        return proposer

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        return self._frozen

    def to(self, device: Any) -> None:
        self.pipeline.to(device)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Means over the rows: each of the losses, and `loss`, their sum."""
        rows, sums = 0, dict[str, float]()
        for batch in batches:
            rows += len(batch.ids)
            for name, value in self.turn.losses(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.ids)
        means = {name: total / rows for name, total in sums.items()}
        return {"loss": sum(means.values()), **means} if rows else {}


def _pipeline(model: ProposerSection, folder: Path) -> Pipeline:
    """The start pipeline, with the conditioner as in the recipe."""
    found = load(locate_model(model.start, folder, "model.start"), dtype="float32")
    name = model.conditioner
    if name not in found.conditioners:
        what = f"the model has no conditioner {name!r}"
        raise CompositionError("unknown-conditioner", what, where="model.conditioner", fits=suggest(name, found.wiring))
    old, wire = found.conditioners[name], found.wiring[name]
    if model.type is not None:
        new: Conditioner = build("conditioner", PartSpec(type=model.type, config=model.config), "model")
        _take_over_weights(new, old, name)
        _check_same_meaning(part_spec("conditioner", old), model, found.origin or model.start)
        wire = wire.model_copy(update={"type": model.type, "config": model.config})
        conditioners = {n: new if n == name else part for n, part in found.conditioners.items()}
        wiring = {**found.wiring, name: wire}
        parts = fit(wiring, found.codec, found.denoiser, found.process, conditioners, found.adapters)
        found = Pipeline(parts, wiring, found.defaults)
    if model.assets is not None:
        before = asset_digests(found.conditioners[name])
        found.conditioners[name].load_assets(assets_folder(model.assets, folder, "model.assets"))
        changed = asset_differences(before, asset_digests(found.conditioners[name]))
        check_meaning(changed, "model", found.origin or model.start, learns=True)  # the proposer's own
    return found


def _check_same_meaning(was: PartSpec, model: ProposerSection, origin: str) -> None:
    """Of the conditioner, whose weights stay; its type, and what the proposer takes from its config, may be others."""
    assert model.type is not None
    found = spec_differences("conditioner", was, PartSpec(type=model.type, config=model.config), "model")
    inner = [d for d in found if d.key.startswith("config.proposer.") or d.key == "config.max_objects"]
    kept = [difference for difference in found if difference.key != "type" and difference not in inner]
    check_meaning(kept, "model", origin, learns=False)
    check_meaning(inner, "model", origin, learns=True)


def _take_over_weights(new: Conditioner, old: Conditioner, name: str) -> None:
    """The old conditioner's weights; only the proposer's may be new."""
    proposer = proposer_of(new)
    own = set() if proposer is None else {id(p) for p in proposer.parameters()}
    fresh = {key for key, p in new.named_parameters() if id(p) in own}
    wanted, given = new.state_dict(), old.state_dict()
    unfit = [k for k in {*wanted, *given} if k not in fresh and not (k in wanted and k in given)]
    unfit += [k for k in {*wanted} & {*given} if wanted[k].shape != given[k].shape]
    if unfit:
        what = f"{type(new).__name__} cannot take over the weights of {type(old).__name__}: {min(unfit)}"
        raise WeightsError("wrong-shape", what, where=f"conditioners.{name}", fits="the same config")
    new.load_state_dict(given, strict=False)
