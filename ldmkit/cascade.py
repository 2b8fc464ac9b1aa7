"""A cascade: pipelines that run in order, later ones on the results of earlier ones. Called like one pipeline."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from ldmkit.bounds import MAX_BATCH
from ldmkit.contracts.arguments import instance_of, mapping_of, path_of
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.step import Evaluations, Step
from ldmkit.errors import CompositionError, InputError, LdmkitError, RunError, SourceError, SpecError, shown, suggest
from ldmkit.models.abilities import bind
from ldmkit.models.cascade import CascadeSpec, StageSpec, at_stage, check_order
from ldmkit.models.cascade_files import save_cascade, shared_parts
from ldmkit.models.cascade_source import CascadeSource
from ldmkit.models.composed import Composed
from ldmkit.models.derived import check_exact
from ldmkit.models.fixed import Fixed
from ldmkit.models.reading import loading_options, open_source, read_cascade
from ldmkit.models.spec import PartSpec, Verify
from ldmkit.pipeline import Pipeline
from ldmkit.run.assigning import Unassignable
from ldmkit.run.busy import computing
from ldmkit.run.callbacks import Callback
from ldmkit.run.cascading import CascadeOutput, PreparedCascade, StageCall, ask_cascade, stand_in
from ldmkit.run.encodings import Encodings
from ldmkit.run.many import Drawn, draw_in_turn
from ldmkit.run.output import Output
from ldmkit.run.prepare import prepare_asked
from ldmkit.run.prepared import Prepared, Stream
from ldmkit.run.recipe import StageRun, make_cascade_recipes, only_recipe
from ldmkit.run.request import Inputs, Resolved, length
from ldmkit.run.sizes import Size


class Cascade(Unassignable):
    """Stages that run in order, each an ordinary pipeline; its result is an input or the start of later stages.

    Build one with `Cascade.load(folder)` or `Cascade.of(...)`. It is immutable, except that `to` moves its modules.

    Attributes:
        stages: name -> `Pipeline`, in the order in which they run.
        wiring: name -> `StageSpec`: which inputs come from which stage, and which parts are shared.
        origin, load_options: as for `Pipeline`.
    """

    def __init__(
        self,
        stages: Mapping[str, Pipeline],
        wiring: Mapping[str, StageSpec],
        *,
        origin: str | None = None,
        load_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.stages, self.wiring = Fixed(stages), Fixed(wiring)
        self.origin, self.load_options = origin, Fixed(load_options or {})
        check_order(CascadeSpec(stages=dict(wiring)).stages)
        check_handovers(self.stages, self.wiring)
        self._made = True

    @classmethod
    def of(
        cls, stages: Mapping[str, Pipeline], wiring: Mapping[str, StageSpec | Mapping[str, Any]] | None = None
    ) -> Cascade:
        """Compose existing pipelines.

        Args:
            stages: name -> pipeline, in the order in which they run. A module that several stages share is saved once;
                a shared conditioner encodes its inputs once per call.
            wiring: name -> stage spec, such as `{"inputs": {"low": "base"}}`: the input `low` is the result of the
                stage `base`; see `StageSpec`.

        Raises:
            SpecError: `unknown-stage`, `stage-circle`, `stage-order`, `handover`, `unknown-share`, `share-differs`.
            CompositionError: `unknown-input`; `wrong-handover`: an input cannot take the result that it is wired to.
        """
        return cls._of(stages, wiring)

    @classmethod
    def _of(cls, stages: object, wiring: object, **known: Any) -> Cascade:
        given = mapping_of(stages, "stages", "name -> pipeline")
        asked = mapping_of(wiring, "wiring", "stage -> inputs, start")
        for name, pipeline in given.items():
            instance_of(pipeline, Pipeline, f"stages.{name}")
        for name in asked:
            if name not in given:
                raise SpecError(
                    "unknown-stage", f"there is no stage {name!r}", where="wiring", fits=suggest(name, given)
                )
        wires = {name: StageSpec.of(asked.get(name, {}), f"wiring.{name}") for name in given}
        CascadeSpec.read({"stages": wires})
        return cls(*_sharing(given, wires), **known)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        ema: bool | None = None,
        variant: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        verify: Verify = "fast",
        mapped: bool = True,
    ) -> Cascade:
        """Load a cascade: a saved one, or a published model of several pipelines.

        Arguments and errors are those of `ldmkit.load`; errors name the stage. That all stages are there, and accept
        one another's results, is checked before any weights are read.

        Raises:
            SourceError: `no-cascade`: the source is not a cascade.
            CompositionError: as `Cascade.of`.
        """
        opened = open_source(source, ema=ema, variant=variant, verify=verify)
        if not isinstance(opened, CascadeSource):
            raise SourceError("no-cascade", "there is no cascade in it", where=opened.origin, fits="ldmkit.load")
        given = loading_options(ema=ema, variant=variant, dtype=dtype)
        return cascade_of(opened, device=device, dtype=dtype, mapped=mapped, load_options=given)

    @property
    def spec(self) -> CascadeSpec:
        """The spec; it refers to the pipelines by the hashes of their specs."""
        stages = {
            name: wire.model_copy(update={"spec": self.stages[name].spec.hash}) for name, wire in self.wiring.items()
        }
        return CascadeSpec(stages=stages)

    @property
    def inputs(self) -> dict[str, Conditioner]:
        """Input name -> the first conditioner that reads it. Includes inputs that stages produce, for calls that begin
        after these stages."""
        found: dict[str, Conditioner] = {}
        for pipeline in self.stages.values():
            found = {**pipeline.inputs, **found}
        return found

    @property
    def codec(self) -> Codec:
        """The last stage's codec."""
        return list(self.stages.values())[-1].codec

    @property
    def device(self) -> torch.device:
        """The device of the last stage's denoiser."""
        return list(self.stages.values())[-1].device

    @property
    def part_specs(self) -> dict[str, PartSpec]:
        """Every part's spec by its path: `base.codec`, `up.conditioners.text` ..."""
        return {f"{name}.{path}": part for name, pipe in self.stages.items() for path, part in pipe.part_specs.items()}

    @property
    def merged(self) -> tuple[str, ...]:
        """Adapters fused into the stages' weights, such as `up.style`."""
        return tuple(f"{name}.{one}" for name, pipe in self.stages.items() for one in pipe.merged)

    def to(self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move or convert every stage, as `Pipeline.to` does; returns the cascade itself."""
        for name, pipeline in self.stages.items():
            with at_stage(name):
                pipeline._moved(device, dtype, tuple(self.stages.values()))
        return self

    def planned(self, plan: str) -> Cascade:
        """A new cascade on the same modules, whose stages run their networks with an execution plan."""
        return self.with_(**{name: pipeline.planned(plan) for name, pipeline in self.stages.items()})

    def with_(self, **stages: Pipeline) -> Cascade:
        """A new cascade with some stages replaced; the wiring stays.

        Raises:
            SpecError, CompositionError: as `Cascade.of`.
        """
        for name in stages:
            if name not in self.stages:
                fits = suggest(name, self.stages)
                raise InputError("unknown-stage", f"there is no stage {name!r}", where=name, fits=fits)
        kept = {name: wire.model_copy(update={"shares": {}}) for name, wire in self.wiring.items()}
        same = all(pipeline.origin == self.stages[name].origin for name, pipeline in stages.items())
        known = {"origin": self.origin, "load_options": self.load_options} if same else {}
        return Cascade._of({**self.stages, **stages}, kept, **known)

    def prepare(self, inputs: Inputs | None = None, **options: Any) -> PreparedCascade:
        """Check a whole call and estimate its cost before anything runs; options as in `__call__`.

        Raises:
            InputError: an argument or input is invalid; `too-much-work`; each names the stage.
        """
        return ask_cascade(self.stages, self.wiring, inputs, options)

    def stream(self, inputs: Inputs | None = None, **options: Any) -> Iterator[Step]:
        """The steps of all stages, one by one; `Step.stage` names the stage of each."""
        return Stream(self._steps(self.prepare(inputs, **options), {}))

    def __call__(
        self, inputs: Inputs | None = None, *, on_step: Callable[[Step], None] | None = None, **options: Any
    ) -> CascadeOutput:
        """Draw pictures. The output is that of the last stage; its `stages` holds those of every stage.

        Args:
            inputs: input name -> value, or a list of such mappings (a batch). Each stage gets the inputs that it reads.
            negative, seeds, steps, sampler, grid, guidance, cache, propose, allow_large: as for a pipeline, for all
                stages. Each stage derives its own seed from the picture's seed and the stage's name.
            stages: name -> arguments of a pipeline for that stage only: `{"up": {"steps": 10, "size": 64}}`. `seeds`
                given here are used as they are.
            first, last: stages to begin at and to stop after. The first stage takes all inputs from the caller.
            on_step: called after every step.

        Raises:
            InputError, RunError: as `Pipeline.__call__`, naming the stage.
        """
        return self.run(self.prepare(inputs, **options), on_step)

    def run(self, prepared: PreparedCascade, on_step: Callable[[Step], None] | None = None) -> CascadeOutput:
        """Run a prepared call; running it again gives the same result."""
        tell = None if on_step is None else Callback(on_step)
        made: dict[str, tuple[StageRun, Output]] = {}
        for step in self._steps(prepared, made):
            if tell is not None:
                tell(step)
        return self._output(prepared, made)

    def many(self, requests: Iterable[Mapping[str, Any]], *, batch: int = 8, **common: Any) -> Iterator[Drawn]:
        """Draw any number of pictures lazily, as `Pipeline.many` does.

        Consecutive requests that differ only in inputs and seeds are drawn in one batch; a request without a `seed` is
        drawn alone.
        """
        return draw_in_turn(self, requests, batch, common)

    def recipe(self, inputs: Inputs | None = None, **options: Any) -> dict[str, Any]:
        """The recipe that the picture of a call would have, without drawing it; see `Pipeline.recipe`."""
        prepared = self.prepare(inputs, **options)
        runs = [self._run(call, call.asked.resolved(), call.asked.size) for call in prepared.calls]
        return only_recipe(make_cascade_recipes(self, prepared.seeds, runs))

    def check_count(self, inputs: Inputs | None = None, **options: Any) -> None:
        """Refuse an absurd number of pictures before looking at their inputs, as `Pipeline.check_count` does."""
        if length(options.get("seeds")) > MAX_BATCH:
            self.prepare(inputs, **options)

    def save(self, folder: str | Path, *, store: torch.dtype | None = None) -> Path:
        """Save to a folder that `Cascade.load` reads: the spec, and each stage as a pipeline; shared parts once.

        Raises:
            CompositionError: `placed-rounded`: as for `Pipeline.save`.
        """
        for name, pipeline in self.stages.items():
            with at_stage(name):
                check_exact(pipeline.rounded, "save")
        return save_cascade(self.stages, self.spec, path_of(folder, "folder"), store)

    def _steps(
        self, prepared: PreparedCascade, made: dict[str, tuple[StageRun, Output]]
    ) -> Generator[Step, None, None]:
        """The steps of all stages; fills `made` with each stage's call and output."""
        instance_of(prepared, PreparedCascade, "prepared")
        known = Encodings()
        for call in prepared.calls:
            pipeline = self.stages[call.name]
            with at_stage(call.name):
                ready = self._ready(call, {name: output for name, (_, output) in made.items()}, known)
                last, taken = None, Evaluations()
                for last in pipeline.steps(ready, taken):
                    yield replace(last, stage=call.name)
                if last is None:
                    raise RunError("no-steps", f"sampler {type(ready.request.sampler).__name__} yielded no step")
                output = pipeline.finish(ready, last, taken)
            made[call.name] = (self._run(call, ready.request, ready.size), output)

    def _run(self, call: StageCall, request: Resolved, size: Size) -> StageRun:
        handed = tuple((key.name, key.field) for key in call.sources if key.field is not None)
        return StageRun(call.name, self.stages[call.name], call.written(request), size, handed)

    def _ready(self, call: StageCall, outputs: Mapping[str, Output], known: Encodings) -> Prepared:
        pipeline = self.stages[call.name]
        codecs = {name: self.stages[name].codec for name in outputs}
        with computing(pipeline.parts.items()):
            return prepare_asked(pipeline, call.filled(outputs, codecs), known)

    def _output(self, prepared: PreparedCascade, made: Mapping[str, tuple[StageRun, Output]]) -> CascadeOutput:
        runs, outputs = [run for run, _ in made.values()], {}
        for i, (name, (_, output)) in enumerate(made.items()):
            recipes = partial(make_cascade_recipes, self, prepared.seeds, runs[: i + 1])
            outputs[name] = replace(output, write_recipes=recipes)
        last = outputs[runs[-1].name]
        return CascadeOutput(**{field.name: getattr(last, field.name) for field in fields(Output)}, stages=outputs)


def cascade_of(source: CascadeSource, *, load_options: Mapping[str, Any] | None = None, **options: Any) -> Cascade:
    """The cascade of an opened source; `device`, `dtype`, `mapped` and errors as for `ldmkit.load`."""
    wiring = source.cascade.stages
    filled = read_cascade(source, partial(_check_fit, wiring=wiring), **options)
    stages = {name: Pipeline(**made) for name, made in filled.items()}
    return Cascade(stages, wiring, origin=source.origin, load_options=load_options)


def _check_fit(stages: Mapping[str, Composed], wiring: Mapping[str, StageSpec]) -> None:
    """Check the stages' handovers before they have weights; raises what `check_handovers` raises."""
    for stage in stages.values():
        for conditioner in stage.conditioners.values():
            bind(conditioner, stage.codec)
    check_handovers(stages, wiring)


def check_handovers(stages: Mapping[str, Composed], wiring: Mapping[str, StageSpec]) -> None:
    """Check that each input accepts the result that it is wired to.

    Raises:
        CompositionError: `unknown-input`, `wrong-handover`.
    """
    for name, wire in wiring.items():
        _check_start(name, stages, wire)
        inputs = stages[name].inputs
        for key, source in wire.sources(f"stages.{name}").items():
            where = f"stages.{name}.inputs.{key.name}"
            if key.name not in inputs:
                what = f"stage {name!r} has no input {key.name!r}"
                raise CompositionError("unknown-input", what, where=where, fits=suggest(key.name, inputs))
            maker = stages[source.stage]
            size = maker.defaults.size or tuple(axis.padded(64) for axis in maker.codec.axes)
            made = stand_in(source, maker, size)
            try:
                inputs[key.name].parse(key.put({}, made)[key.name], where)
            except LdmkitError as problem:
                what = f"{name!r} does not accept the result of {source.stage!r}, of shape {list(made.shape)}"
                raise CompositionError("wrong-handover", what, where=where, fits=shown(str(problem), 300)) from problem


def _check_start(name: str, stages: Mapping[str, Composed], wire: StageSpec) -> None:
    if wire.start is None:
        return
    mine, other = (
        (codec.data_channels, len(codec.axes)) for codec in (stages[name].codec, stages[wire.start.stage].codec)
    )
    if mine != other:
        what = (
            f"{name!r} starts from data of {_data(*mine)}, and the result of {wire.start.stage!r} has {_data(*other)}"
        )
        raise CompositionError("wrong-handover", what, where=f"stages.{name}.start", fits="stages of the same data")


def _data(channels: int, axes: int) -> str:
    return f"{channels} channels and {axes} axes"


def _sharing(
    stages: Mapping[str, Pipeline], wiring: Mapping[str, StageSpec]
) -> tuple[dict[str, Pipeline], dict[str, StageSpec]]:
    """Stages that share the parts which the wiring says, and wiring that names every part which they share."""
    made: dict[str, Pipeline] = {}
    wires: dict[str, StageSpec] = {}
    for name, pipeline in stages.items():
        before = {one: (other.spec, other.parts.items()) for one, other in made.items()}
        ready = shared_parts(name, wiring[name], pipeline.spec, before)
        made[name] = _with_parts(pipeline, ready)
        same = {
            path: f"{one}.{path}"
            for path, part in made[name].parts.items().items()
            for one, other in reversed(made.items())
            if one != name and other.parts.items().get(path) is part and path not in wires[one].shares
        }
        wires[name] = wiring[name].model_copy(update={"shares": same})
    return made, wires


def _with_parts(pipeline: Pipeline, ready: Mapping[str, Any]) -> Pipeline:
    """The pipeline with other modules at some paths of its parts."""
    if not ready:
        return pipeline
    named = {
        path.removeprefix("conditioners."): part for path, part in ready.items() if path.startswith("conditioners.")
    }
    whole = {path: part for path, part in ready.items() if path in ("codec", "denoiser")}
    rest = [path for path in ready if path not in whole and not path.startswith("conditioners.")]
    if rest:
        raise SpecError("unknown-share", f"{rest[0]!r} cannot be shared", fits="codec, denoiser, conditioners")
    return pipeline.with_(**whole, **({"conditioners": named} if named else {}))
