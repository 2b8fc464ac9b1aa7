"""One call of a cascade: an ordinary call per stage, with arguments from the caller and from earlier stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts.arguments import mapping_of
from ldmkit.contracts.draws import seed_of
from ldmkit.errors import InputError, shown, suggest
from ldmkit.models.cascade import Handover, StageSpec, StageStart, Target, at_stage
from ldmkit.models.composed import Composed
from ldmkit.run.estimate import Estimate
from ldmkit.run.inputs import check_given, parse_rows
from ldmkit.run.output import Output
from ldmkit.run.prepare import ARGUMENTS, Asked, ask, check_asked
from ldmkit.run.request import Inputs, Resolved, check_seeds, mappings
from ldmkit.run.sizes import latent_size
from ldmkit.run.spellings import check_arguments
from ldmkit.run.starts import starts_of

COMMON = ("negative", "seeds", "steps", "sampler", "grid", "guidance", "cache", "propose", "allow_large")
"""Arguments of a cascade that apply to each stage without its own."""
OWN = tuple(name for name in ARGUMENTS if name != "on_step")
"""Arguments of a single stage, in `stages={"up": {...}}`."""
Rows: TypeAlias = Sequence[Mapping[str, Any]]


def stage_seed(seed: int, stage: str) -> int:
    """The seed of a stage, derived from a picture's seed, so that the noise of stages is independent."""
    return seed_of(seed, "stage", stage)


@dataclass(frozen=True)
class StageCall:
    """The call of one stage, checked before any stage runs.

    Args:
        asked: the call, with stand-ins of the right size for the results of earlier stages.
        sources: input, or field of one -> the result that it takes, if its stage runs.
        start: the picture that it starts from, if its stage runs.
    """

    name: str
    pipeline: Composed
    asked: Asked
    sources: Mapping[Target, Handover]
    start: StageStart | None
    estimate: Estimate

    def filled(self, outputs: Mapping[str, Output], codecs: Mapping[str, Any]) -> Asked:
        """The call with the stand-ins replaced by the outputs of earlier stages."""
        asked = self.asked
        made = {key: handed_on(source, outputs[source.stage]) for key, source in self.sources.items()}
        rows = [{key.name: row[key.name] for key in made} for row in asked.request.inputs]  # with the stand-ins
        for key, values in made.items():
            rows = [key.put(row, value) for row, value in zip(rows, values, strict=True)]
        parsed = parse_rows(self.pipeline.parts, self.pipeline.wiring, rows, "inputs")
        asked = asked._replace(parsed=[{**row, **more} for row, more in zip(asked.parsed, parsed, strict=True)])
        if self.start is None:
            return asked
        given = stage_starts(self.start, outputs[self.start.stage], self.pipeline.codec is codecs[self.start.stage])
        starts = tuple(one.start for one in starts_of(given, self.pipeline.codec))
        return asked._replace(request=replace(asked.request, starts=starts))

    def written(self, request: Resolved) -> Resolved:
        """The request of its run as stored in recipes: without the results of other stages."""
        whole = [key.name for key in self.sources if key.field is None]
        inputs = tuple({k: v for k, v in row.items() if k not in whole} for row in request.inputs)
        return replace(request, inputs=inputs, starts=() if self.start is not None else request.starts)


@dataclass(frozen=True)
class PreparedCascade:
    """A cascade call that was checked as a whole; conditions are encoded when the stages run."""

    calls: tuple[StageCall, ...]
    seeds: tuple[int, ...]
    estimate: Estimate
    """Evaluations and times summed over all stages, and the memory of the stage that takes most."""

    @property
    def total(self) -> int:
        """Sampler steps of all stages together."""
        return sum(call.estimate.steps for call in self.calls)

    @property
    def evaluations(self) -> int:
        """Number of network calls of all stages together."""
        return self.estimate.evaluations

    @property
    def rows(self) -> int:
        """Largest batch of a network."""
        return self.estimate.rows


@dataclass(frozen=True)
class CascadeOutput(Output):
    """The output of the last stage that ran; `stages` has the outputs of all stages, by name.

    Recipes are of the whole cascade; the recipe of an earlier stage's picture is of the cascade up to that stage.
    """

    stages: Mapping[str, Output] = field(default_factory=dict)

    def row(self, index: int) -> CascadeOutput:
        """One picture of a batch, as a copy that shares no memory with the batch."""
        alone: CascadeOutput = super().row(index)
        return replace(alone, stages={name: output.row(index) for name, output in self.stages.items()})


def ask_cascade(
    stages: Mapping[str, Composed], wiring: Mapping[str, StageSpec], inputs: Inputs | None, options: Mapping[str, Any]
) -> PreparedCascade:
    """Check a call as a whole: arguments, inputs, sizes and memory of every stage that will run.

    Raises:
        InputError, SpecError, PluginError: as for `Pipeline.prepare`, naming the stage; `unknown-stage`,
            `stage-idle`, `stage-option`, `bound-input`, `missing-condition`.
    """
    chosen = chosen_stages(stages, options.get("first"), options.get("last"))
    own = _own_options(stages, chosen, options.get("stages"))
    free, sources = _wired(stages, wiring, chosen)
    _check_names(options, free)
    if inputs is None:
        fits = f"a mapping from input name to value: {', '.join(free) or '{}'}"
        raise InputError("not-a-mapping", "got NoneType: no inputs are given", where="inputs", fits=fits)
    negative = options.get("negative")
    rows = _split(inputs, "inputs", free, sources)
    opposite = {} if negative is None else _split(negative, "negative", free, sources)
    common = {name: options[name] for name in COMMON if name in options and name not in ("negative", "seeds")}
    seeds = check_seeds(options.get("seeds", (0,)))
    calls: list[StageCall] = []
    for name in chosen:
        made = {**common, "seeds": [stage_seed(seed, name) for seed in seeds], **own.get(name, {})}
        if opposite.get(name) and "negative" not in made:
            made["negative"] = opposite[name]
        with at_stage(name):
            calls.append(_call(name, stages[name], wiring[name], rows[name], made, sources[name], calls))
    return PreparedCascade(tuple(calls), seeds, _summed([call.estimate for call in calls]))


def chosen_stages(stages: Mapping[str, Any], first: object, last: object) -> list[str]:
    """Names of the stages from `first` to `last`; None: from the first stage, or to the last.

    Raises:
        InputError: `unknown-stage`, `stage-range`.
    """
    names = list(stages)
    for where, name in (("first", first), ("last", last)):
        if name is not None and name not in names:
            raise InputError("unknown-stage", f"got {shown(name)}", where=where, fits=suggest(name, names))
    begin = 0 if first is None else names.index(str(first))
    end = len(names) if last is None else names.index(str(last)) + 1
    if begin >= end:
        what = f"stage {last!r} runs before {first!r}"
        raise InputError("stage-range", what, where="last", fits=", ".join(names[begin:]))
    return names[begin:end]


def handed_on(source: Handover, output: Output) -> list[Any]:
    """The results of a stage, one per row: pictures (3,H,W) in [-1,1], other data and latents unchanged."""
    if source.latents:
        return list(output.latents)
    return list(output.images * 2 - 1) if output.visual else list(output.images)


def stage_starts(start: StageStart, output: Output, same_codec: bool) -> list[dict[str, Any]]:
    """What a stage starts from, one mapping per row."""
    if start.enlarge == 1 and output.codec is not None and same_codec:
        return [{"latents": latents, "strength": start.strength} for latents in output.latents]
    images = output.images * 2 - 1
    if start.enlarge > 1:
        images = F.interpolate(images, scale_factor=start.enlarge, mode="bicubic").clamp(-1, 1)
    return [{"image": image, "strength": start.strength} for image in images]


def stand_in(source: Handover, pipeline: Composed, size: Sequence[int]) -> Tensor:
    """Zeros with the shape of a stage's result."""
    codec = pipeline.codec
    shape = (codec.channels, *latent_size(tuple(size), codec)) if source.latents else (codec.data_channels, *size)
    return torch.zeros(shape)


def _own_options(stages: Mapping[str, Composed], chosen: Sequence[str], given: object) -> dict[str, dict[str, Any]]:
    """Stage -> the arguments given for it alone."""
    found: dict[str, dict[str, Any]] = {}
    for name, options in mapping_of(given, "stages", 'stage -> its arguments: {"up": {"steps": 10}}').items():
        if name not in stages:
            raise InputError(
                "unknown-stage", f"there is no stage {shown(name)}", where="stages", fits=suggest(name, stages)
            )
        if name not in chosen:
            what = "it has arguments, but does not run in this call"
            raise InputError("stage-idle", what, where=f"stages.{name}", fits=", ".join(chosen))
        found[name] = mapping_of(options, f"stages.{name}", "argument -> value")
        with at_stage(name):
            check_arguments(found[name], OWN, stages[name].inputs)
    return found


def _wired(
    stages: Mapping[str, Composed], wiring: Mapping[str, StageSpec], chosen: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, dict[Target, Handover]]]:
    """(input -> stages that take it from the caller, stage -> its inputs that come from other stages)."""
    free: dict[str, list[str]] = {}
    sources: dict[str, dict[Target, Handover]] = {}
    for name in chosen:
        handed = wiring[name].sources(f"stages.{name}")
        sources[name] = {key: source for key, source in handed.items() if source.stage in chosen}
        for key in stages[name].inputs:
            if Target(key) not in sources[name]:
                free.setdefault(key, []).append(name)
    return free, sources


def _check_names(options: Mapping[str, Any], free: Mapping[str, Any]) -> None:
    for name in ("size", "start"):
        if options.get(name) is not None:
            what = f"each stage has its own {name}"
            raise InputError("stage-option", what, where=name, fits=f'stages={{"its name": {{"{name}": ...}}}}')
    known = (*COMMON, "inputs", "size", "start", "stages", "first", "last")
    check_arguments(options, known, free)


def _split(
    given: Inputs, where: str, free: Mapping[str, Sequence[str]], sources: Mapping[str, Mapping[Target, Handover]]
) -> dict[str, list[dict[str, Any]]]:
    """Stage -> the caller's rows, with only the inputs of that stage.

    Raises:
        InputError: `unknown-input`; `bound-input`: the input comes from another stage.
    """
    rows = mappings(given, where)
    for i, row in enumerate(rows):
        place = where if len(rows) == 1 else f"{where}[{i}]"
        for key in row:
            if key in free:
                continue
            makers = {name: handed[Target(key)].stage for name, handed in sources.items() if Target(key) in handed}
            if makers:
                name, maker = next(iter(makers.items()))
                what = f"the input {key!r} of stage {name!r} comes from stage {maker!r}"
                raise InputError("bound-input", what, where=f"{place}.{key}", fits=f"first={name!r} to begin there")
            what = f"no stage of this call has an input {shown(key)}"
            raise InputError("unknown-input", what, where=place, fits=suggest(key, free))
    return {name: [{key: value for key, value in row.items() if name in free[key]} for row in rows] for name in sources}


def _call(
    name: str, pipeline: Composed, wire: StageSpec, rows: Rows, options: Mapping[str, Any],
    sources: Mapping[Target, Handover], before: Sequence[StageCall],
) -> StageCall:  # fmt: skip
    done, given = {call.name: call for call in before}, dict(options)
    makers = {key: done[source.stage] for key, source in sources.items()}
    stand_ins = {key: stand_in(sources[key], maker.pipeline, maker.asked.size) for key, maker in makers.items()}
    joined = _joined(rows, mappings(given.pop("inputs", {}), "inputs"), stand_ins)
    _check_supplied(wire, joined, done)
    start = wire.start if wire.start is not None and wire.start.stage in done else None
    if start is not None:
        if given.get("start") is not None:
            what = f"it starts from the picture of stage {start.stage!r}"
            raise InputError("bound-input", what, where="start", fits=f"first={name!r} to start from your own")
        given["start"] = _start_stand_in(start, done[start.stage])
    batch = before[0].asked.request.batch if before else 1
    seeds = check_seeds(given["seeds"])
    given["seeds"] = seeds * batch if len(seeds) == 1 and len(joined) in (1, batch) else seeds
    asked = ask(pipeline, joined[0] if len(joined) == 1 else joined, given)
    if before and asked.request.batch != batch:
        what = f"{asked.request.batch} pictures, but earlier stages draw {batch}"
        raise InputError("batch-mismatch", what, where="seeds", fits="one, or one per picture")
    check_given(pipeline.parts, pipeline.wiring, asked.parsed, asked.size)
    return StageCall(name, pipeline, asked, sources, start, check_asked(pipeline, asked))


def _check_supplied(wire: StageSpec, rows: Rows, done: Mapping[str, StageCall]) -> None:
    """Refuse a call without an input that comes from a stage which does not run.

    Raises:
        InputError: `missing-condition`.
    """
    for key, source in wire.sources("stages").items():
        if source.stage not in done and not all(key.is_set(row) for row in rows):
            what = f"the input {key.name!r} comes from stage {source.stage!r}, which does not run in this call"
            raise InputError("missing-condition", what, where="inputs", fits=f'{{"{key.name}": ...}} of your own')


def _joined(rows: Rows, more: Rows, stand_ins: Mapping[Target, Any]) -> list[dict[str, Any]]:
    """The caller's inputs, merged with those for this stage alone and stand-ins for those from other stages."""
    count = max(len(rows), len(more))
    if len(rows) not in (1, count) or len(more) not in (1, count):
        what = f"{len(more)} inputs for the stage, but {len(rows)} pictures"
        raise InputError("batch-mismatch", what, where="inputs", fits="one mapping, or one per picture")
    joined = [{**rows[i % len(rows)], **more[i % len(more)]} for i in range(count)]
    for key, value in stand_ins.items():
        if any(key.is_set(row) for row in joined):
            fits = "first=... to begin at this stage" + (
                f"; its other fields: {{{key.name!r}: {{...}}}}" if key.field else ""
            )
            raise InputError(
                "bound-input", "it comes from another stage", where=f"inputs.{'.'.join(filter(None, key))}", fits=fits
            )
        joined = [key.put(row, value) for row in joined]
    return joined


def _start_stand_in(start: StageStart, call: StageCall) -> dict[str, Any]:
    size = [side * start.enlarge for side in call.asked.size]
    return {"image": torch.zeros(call.pipeline.codec.data_channels, *size), "strength": start.strength}


def _summed(estimates: Sequence[Estimate]) -> Estimate:
    most = max(estimates, key=lambda one: one.bytes)
    return replace(
        estimates[-1],
        steps=sum(one.steps for one in estimates),
        evaluations=sum(one.evaluations for one in estimates),
        rows=max(one.rows for one in estimates),
        bytes=most.bytes,
        room=most.room,
        seconds=sum(one.seconds for one in estimates) if all(one.seconds for one in estimates) else 0,
    )
