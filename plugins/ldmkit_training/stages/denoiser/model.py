"""The model of a denoiser's recipe: its parts built or loaded, and fitted together as every pipeline is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ldmkit import (
    Adapter,
    Codec,
    CompositionError,
    Conditioner,
    ConditionerSpec,
    Defaults,
    Denoiser,
    Part,
    PartSpec,
    Pipeline,
    Source,
    build_value,
    check_pictures,
    get,
    load_codec,
    suggest,
)
from ldmkit.models.abilities import proposer_of, share
from ldmkit.models.compose import build, fit
from ldmkit.models.latent_scale import check_latents_fit, latents_of
from ldmkit.models.meta import on_meta
from ldmkit.models.reading import open_source, part_of
from ldmkit.models.routing import route
from ldmkit_training.before.located import assets_folder, locate_model
from ldmkit_training.stages.denoiser.model_section import (
    AdapterSection,
    ConditionerSection,
    FrozenCodecSection,
    ModelSection,
)
from ldmkit_training.stages.designed import frozen_note, learn, learns
from ldmkit_training.stages.seeded import seeded
from ldmkit_training.stages.taken_over import (
    Difference,
    asset_differences,
    asset_digests,
    check_meaning,
    spec_differences,
)

START = "model.start"


@dataclass(frozen=True)
class TrainedPipeline:
    """A pipeline, and its modules that are trained, by name (`denoiser`, a conditioner's or an adapter's name).

    `notes` say in a line each what was taken from where.
    """

    pipeline: Pipeline
    trained: Mapping[str, Part]
    notes: tuple[str, ...]


def compose_model(
    model: ModelSection, folder: Path, seed: int = 0, size: tuple[int, int] | None = None
) -> TrainedPipeline:
    """Build and load the parts of a recipe, and check that they fit. Paths start from `folder`, or as they stand.

    The first weights of a part are a function of the seed and the part's name: other parts do not change them.
    `size` is (height, width) of the pictures in training.

    Raises:
        SourceError, WeightsError: what was to be loaded is missing or does not fit.
        PluginError, SpecError, CompositionError: as for every pipeline; both parts are named.
    """
    return _Composer(model, folder, seed, size).compose()


class _Composer:
    def __init__(self, model: ModelSection, folder: Path, seed: int, size: tuple[int, int] | None) -> None:
        self.model, self.folder, self.seed, self.size = model, folder, seed, size
        found = None if model.start is None else locate_model(model.start, folder, START)
        self.start = None if found is None else open_source(found, variant=model.variant)
        self.notes: list[str] = []

    def compose(self) -> TrainedPipeline:
        model, start = self.model, self.start
        codec = self._codec()
        self.embeds = codec.embeds
        if not codec.embeds:
            check_pictures(codec.axes, "a training recipe")
        theirs = None if start is None else _Taken(start, "denoiser", start.spec.denoiser)
        denoiser: Denoiser = self._loaded_or_new(
            "denoiser", self._denoiser_spec(), "denoiser", theirs, learns=self._denoiser_learns()
        )
        self._check_latents(denoiser, codec)
        sections = self._conditioners()
        conditioners = {name: self._conditioner(name, section, sections) for name, section in sections.items()}
        for name, section in sections.items():
            if section.shares is not None and section.shares in conditioners:
                share(conditioners[name], conditioners[section.shares])
        adapters = {name: self._adapter(name, section, denoiser) for name, section in self._adapters().items()}
        process = model.process or (start.spec.process if start else None)
        assert process is not None, "checked by ModelSection"
        if self.start is not None:
            self._check_surroundings(process, sections, self.start)
        wiring = {
            name: _wiring_of(name, section, conditioners[name], denoiser, adapters)
            for name, section in sections.items()
        }
        parts = fit(wiring, codec, denoiser, build_value("process", process, "model.process"), conditioners, adapters)
        denoiser.latents = latents_of(codec)
        pipeline = Pipeline(parts, wiring, self._defaults())
        return TrainedPipeline(pipeline, self._freeze(pipeline, sections), tuple(self.notes))

    def _check_surroundings(self, process: PartSpec, sections: Mapping[str, ConditionerSection], start: Source) -> None:
        """What the start's denoiser was trained with, beside its own config: the process, and its conditions' nulls and
        slots."""
        where, learns = "model.process", self._denoiser_learns()
        found = spec_differences("process", start.spec.process, process, where)
        self.notes += check_meaning(found, where, start.origin, learns=learns)
        for name, was in start.spec.conditioners.items():
            if (now := sections.get(name)) is None:
                continue
            wires = [(key, getattr(was, key), getattr(now, key)) for key in ("null", "slot")]
            changed = [Difference(*wire) for wire in wires if None not in wire and wire[1] != wire[2]]
            self.notes += check_meaning(changed, f"model.conditioners.{name}", start.origin, learns=learns)

    def _check_latents(self, denoiser: Denoiser, codec: Codec) -> None:
        """A denoiser that stays what it is must get the latents that it was trained on, which `fit` looks at; for one
        that learns, others are a note."""
        if self.start is None:
            return
        with on_meta():
            denoiser.latents = latents_of(build("codec", self.start.codec_spec, START))
        if not self._denoiser_learns():
            return
        try:
            check_latents_fit(codec, denoiser)
        except CompositionError as error:
            if error.code != "compose.scale-mismatch":
                raise
            said = f"model.codec: {error.what}: it learns other latents"
            self.notes.append(said)
            warnings.warn(said, stacklevel=2)
        denoiser.latents = None

    def _defaults(self) -> Defaults:
        """The recipe's, else the start's; a denoiser that learns draws the size that it learns."""
        theirs = self.start.spec.defaults if self.start else Defaults()
        defaults = self.model.defaults or theirs
        if self.embeds:  # what it makes has no size
            return defaults
        said = self.model.defaults is not None and self.model.defaults.size is not None
        size = self.size if self._denoiser_learns() or theirs.size is None else theirs.size
        if said or size is None or size == defaults.size:
            return defaults
        before = "" if theirs.size is None else f" (the start's was {theirs.size[0]} x {theirs.size[1]})"
        self.notes.append(f"defaults.size: {size[0]} x {size[1]}, the training pictures'{before}")
        return defaults.model_copy(update={"size": size})

    def _denoiser_learns(self) -> bool:
        if self.model.denoiser is not None:
            return self.model.denoiser.train
        # an adapter is trained on a network that stays what it is
        return not any(section.train for section in self.model.adapters.values() if section is not None)

    def _codec(self) -> Codec:
        if self.model.codec is not None:
            return load_frozen_codec(self.model.codec, self.folder)
        assert self.model.start is not None, "checked by ModelSection"
        found = locate_model(self.model.start, self.folder, START)
        return load_codec(found, dtype="float32", variant=self.model.variant)

    def _denoiser_spec(self) -> PartSpec:
        if self.model.denoiser is not None:
            return self.model.denoiser
        assert self.start is not None, "checked by ModelSection"
        return self.start.spec.denoiser

    def _conditioners(self) -> dict[str, ConditionerSection]:
        """Those of the recipe; before them the start's others."""
        own = self.model.conditioners
        theirs = {} if self.start is None else self._left(self.start.spec.conditioners, own, "conditioners")
        kept = {name: ConditionerSection.of(data, name) for name, data in theirs.items()}
        return kept | {name: section for name, section in own.items() if section is not None}

    def _adapters(self) -> dict[str, AdapterSection]:
        own = self.model.adapters
        theirs = {} if self.start is None else self._left(self.start.spec.adapters, own, "adapters")
        kept = {name: AdapterSection.of(data, name) for name, data in theirs.items()}
        return kept | {name: section for name, section in own.items() if section is not None}

    def _left(self, theirs: Mapping[str, PartSpec], own: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
        """The start's parts of a kind that the recipe does not name, frozen."""
        for name, section in own.items():
            if section is None and name not in theirs:
                what = f"the start has no {name!r} to leave out"
                where = f"model.{kind}.{name}"
                raise CompositionError("unknown-conditioner", what, where=where, fits=suggest(name, theirs))
        return {name: spec.model_dump() | {"train": False} for name, spec in theirs.items() if name not in own}

    def _conditioner(
        self, name: str, section: ConditionerSection, sections: Mapping[str, ConditionerSection]
    ) -> Conditioner:
        path = f"conditioners.{name}"
        source = self.start
        theirs = None if source is None else _taken(source, "conditioners", source.spec.conditioners, name)
        if section.from_ is not None:
            found = locate_model(section.from_, self.folder, f"model.{path}.from")
            source = open_source(found, variant=section.variant)
            theirs = _conditioner_of(source, name, section.type)
        owner = sections.get(section.shares or "", section)
        if section.shares is not None:
            part: Conditioner = self._new("conditioner", section, path)
            if self.start is not None and (was := self.start.spec.conditioners.get(name)) is not None:
                changed = spec_differences("conditioner", was, section, f"model.{path}")
                self.notes += check_meaning(changed, f"model.{path}", self.start.origin, learns=owner.train)
        else:
            part = self._loaded_or_new("conditioner", section, path, theirs, learns=section.train)
        if section.assets is not None:
            before = asset_digests(part)
            part.load_assets(assets_folder(section.assets, self.folder, f"model.{path}.assets"))
            changed = asset_differences(before, asset_digests(part))
            origin = source.origin if source is not None else "its start"
            self.notes += check_meaning(changed, f"model.{path}", origin, learns=owner.train)
        return part

    def _adapter(self, name: str, section: AdapterSection, denoiser: Denoiser) -> Adapter:
        path = f"adapters.{name}"
        copying: Callable[..., Adapter] | None = getattr(get("adapter", section.type), "from_denoiser", None)
        theirs = None if self.start is None else _taken(self.start, "adapters", self.start.spec.adapters, name)
        if copying is None or "unet" in section.config or theirs is not None:
            adapter: Adapter = self._loaded_or_new("adapter", section, path, theirs, learns=section.train)
            return adapter
        with seeded(self.seed, path):
            self.notes.append(f"{path}: a copy of the denoiser")
            return copying(denoiser, **section.config)

    def _loaded_or_new(self, kind: str, spec: PartSpec, path: str, theirs: _Taken | None, *, learns: bool) -> Any:
        """A part with the weights of a source that has it, or with new ones; those of one that does not learn are
        refused where the recipe's config would read them in another way."""
        if theirs is None:
            self.notes.append(f"{path}: new")
            return self._new(kind, spec, path)
        source, has = theirs.source, theirs.spec
        same = has.type == spec.type
        wanted = PartSpec(
            type=spec.type, config=spec.config or has.config,
            distribution=has.distribution if same else None, version=has.version if same else None,
        )  # fmt: skip
        part = part_of(
            source, kind, wanted, theirs.path,
            where=f"model.{path}", device=torch.device("cpu"), dtype=torch.float32, mapped=False,  # to be trained
        )  # fmt: skip
        self.notes.append(f"{path}: from {source.origin}")
        found = spec_differences(kind, has, wanted, f"model.{path}")
        self.notes += check_meaning(found, f"model.{path}", source.origin, learns=learns)
        return part

    def _new(self, kind: str, spec: PartSpec, path: str) -> Any:
        with seeded(self.seed, path):
            return build(kind, spec, f"model.{path}")

    def _freeze(self, pipeline: Pipeline, sections: Mapping[str, ConditionerSection]) -> dict[str, Part]:
        """The trained parts by name; all others are frozen."""
        named: dict[str, Part] = {"denoiser": pipeline.denoiser, **pipeline.conditioners, **pipeline.adapters}
        wanted = {name: section.train for name, section in {**sections, **self._adapters()}.items()}
        wanted["denoiser"] = self._denoiser_learns()
        trained = {}
        for name, part in named.items():
            shared = name in sections and sections[name].shares is not None
            if not shared:
                part.requires_grad_(False).eval()
            if wanted[name] and not shared:
                if frozen := learn(part):
                    self.notes.append(frozen_note(name, frozen))
                if learns(part):
                    trained[name] = part
            if isinstance(part, Conditioner) and (proposer := proposer_of(part)) is not None:
                proposer.requires_grad_(False)  # no loss of this stage reaches it
        pipeline.codec.requires_grad_(False).eval()
        if not trained:
            raise CompositionError("nothing-to-train", "every part is frozen", where="model", fits="`train: true`")
        return trained


def load_frozen_codec(section: FrozenCodecSection, folder: Path) -> Codec:
    """The first stage whose latents are trained on.

    Raises:
        CompositionError: `untrained-codec`: a new one that has weights.
        SourceError, WeightsError: what was to be loaded is missing or does not fit.
    """
    if section.from_ is not None:
        found = locate_model(section.from_, folder, "model.codec.from")
        return load_codec(found, dtype="float32", scale=section.scale, variant=section.variant)
    codec: Codec = build("codec", PartSpec(type=str(section.type), config=section.config), "model.codec")
    if any(True for _ in codec.parameters()):
        fits = "`from`, with a trained codec"
        raise CompositionError("untrained-codec", f"a new {section.type!r}", where="model.codec", fits=fits)
    return codec.eval()


class _Taken(NamedTuple):
    """A part of a source whose weights are read: where it stands there, and what it is."""

    source: Source
    path: str
    spec: PartSpec


def _taken(source: Source, section: str, theirs: Mapping[str, PartSpec], name: str) -> _Taken | None:
    """The part of that name in a section of a source's spec; None if it has none."""
    return _Taken(source, f"{section}.{name}", theirs[name]) if name in theirs else None


def _conditioner_of(source: Source, name: str, kind: str) -> _Taken:
    """The conditioner of that name, else the only one of that type."""
    theirs = source.spec.conditioners
    if (found := _taken(source, "conditioners", theirs, name)) is not None:
        return found
    fitting = [other for other, spec in theirs.items() if spec.type == kind]
    if len(fitting) != 1:
        what = f"{source.origin} has no conditioner {name!r}, and {len(fitting)} of type {kind!r}"
        where = f"model.conditioners.{name}.from"
        raise CompositionError("unknown-conditioner", what, where=where, fits=suggest(name, theirs))
    return _Taken(source, f"conditioners.{fitting[0]}", theirs[fitting[0]])


def _wiring_of(
    name: str, section: ConditionerSection, part: Conditioner, denoiser: Denoiser, adapters: Mapping[str, Adapter]
) -> ConditionerSpec:
    """The wiring alone. Beside adapters, a conditioner that names no slot fills the denoiser's where there is one."""
    data = section.model_dump(include=set(ConditionerSpec.model_fields))
    if adapters and section.slot is None and any(slot.kind == part.kind for slot in denoiser.slots.values()):
        data["slot"] = route(name, part.kind, None, denoiser.slots)
    return ConditionerSpec.of(data, name)
