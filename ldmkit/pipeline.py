"""A composed model: encode, stream, decode, call, save. Stateless to its caller; threads may share one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.arguments import check_callback, check_sides, destination, instance_of, path_of
from ldmkit.contracts.axes import check_axes
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.draws import Draws
from ldmkit.contracts.process import Process
from ldmkit.contracts.seeded import drawn_rows
from ldmkit.contracts.step import Evaluations, Step
from ldmkit.errors import CompositionError, RunError, caller_level
from ldmkit.models.abilities import bind
from ldmkit.models.changed import explain_mixed_tensors
from ldmkit.models.compose import fit, hold_adapters, mapped_parts, wired
from ldmkit.models.derived import check_exact
from ldmkit.models.memory import memory
from ldmkit.models.reading import read_model
from ldmkit.models.residence import home_of, in_use
from ldmkit.models.saving import save_pipeline
from ldmkit.models.spec import ConditionerSpec, Defaults
from ldmkit.models.varied import Varied
from ldmkit.plugins.hooks import manager, step_listener
from ldmkit.run.assigning import check_unmade
from ldmkit.run.blame import blamed
from ldmkit.run.busy import moving, uses_parts, using
from ldmkit.run.conditioning import Conditioning
from ldmkit.run.faults import blaming
from ldmkit.run.generators import watched, watched_steps
from ldmkit.run.gradients import remark_gradients
from ldmkit.run.guards import check_end, check_step, is_finite, part_name
from ldmkit.run.inpaint import with_kept
from ldmkit.run.inputs import encode_conditions, parse_negatives, parse_rows
from ldmkit.run.latents import batch_of, check_codec, check_latents, decode_latents, encode_pictures
from ldmkit.run.many import Drawn, draw_many
from ldmkit.run.modes import evaluated, evaluating, modules_of
from ldmkit.run.output import Output
from ldmkit.run.prepare import Asked, prepare_asked, prepare_run
from ldmkit.run.prepared import Prepared, Stream, check_current, check_prepared
from ldmkit.run.recipe import make_recipes
from ldmkit.run.request import Inputs, Starting, Strategy, check_seeds, mappings
from ldmkit.run.sizes import Size, fitted
from ldmkit.run.spellings import no_attribute, own_arguments


class Pipeline(Varied):
    """A codec, a denoiser, conditioners and a process that fit each other.

    Build one with `ldmkit.load(...)` or `Pipeline.of(...)`. No call changes it. Its attributes are those of `Composed`.
    """

    def _ready(self) -> None:
        if self.defaults.size is not None:
            check_axes(self.defaults.size, self.codec.axes, "defaults.size")
        for conditioner in self.conditioners.values():
            bind(conditioner, self.codec)
        hold_adapters(self, self.parts)
        self._made = True
        manager().hook.ldmkit_pipeline_built(pipeline=self)

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(type(self).__name__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        check_unmade(self, name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        check_unmade(self, name)
        super().__delattr__(name)

    @classmethod
    def of(
        cls,
        *,
        codec: Codec,
        denoiser: Denoiser,
        process: Process,
        conditioners: Mapping[str, Conditioner] | None = None,
        adapters: Mapping[str, Adapter] | None = None,
        wiring: Mapping[str, ConditionerSpec | Mapping[str, Any]] | None = None,
        defaults: Defaults | Mapping[str, Any] | None = None,
    ) -> Pipeline:
        """Compose existing modules.

        Args:
            wiring: conditioner name -> slot, null, input (see `ConditionerSpec`; `type` may be left out).
            defaults: sampler, grid, guidance, steps and size of calls that do not say.

        Raises:
            CompositionError: parts that do not fit; the error names both.
        """
        given, added = mapped_parts(codec, denoiser, process, conditioners, adapters)
        wires = wired(given, wiring)
        parts = fit(wires, codec, denoiser, process, given, added)
        return cls(parts, wires, Defaults.of({} if defaults is None else defaults, "defaults"))

    def to(self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move or convert every part, in place as `nn.Module.to` does; returns the pipeline itself.

        Raises:
            RunError: `busy`: a run of this or another pipeline on the same parts is under way.
            CompositionError: `placed`: a dtype for parts that are placed, which `placed` can give.
        """
        device, dtype = destination(device, dtype)
        parts = self.parts.items().values()
        if dtype is not None and any(part.placed is not None for part in parts):
            fits = 'pipeline.placed({"denoiser": "streamed+bfloat16"}), or to(dtype=...) first'
            raise CompositionError("placed", "weights that are placed are not converted", where="dtype", fits=fits)
        with moving(parts):
            for part in parts:
                home = home_of(part)
                if home is None:
                    part.to(device=device, dtype=dtype)
                elif device is not None:
                    home.to(device)
        return self

    @uses_parts
    def encode(self, images: Any, noise: Tensor | None = None, *, allow_large: bool = False) -> Tensor:
        """Latents (B,C,h,w) of one picture, a list of them, or a batch (B,3,H,W) in [-1,1]; padded to fit the codec.

        Of a codec of other data (videos, vectors) a batch (B,data_channels,*axes) is taken.

        Raises:
            InputError: `too-much-work`, unless `allow_large`: see `prepare`; `data-shape`: no such batch.
        """
        batch = batch_of(self.codec, images)
        remark_gradients({"images": images})
        check_codec(self.codec, len(batch), tuple(batch.shape[2:]), "encode", allow_large)
        return encode_pictures(self.codec, fitted(batch, self.codec), noise)

    @uses_parts
    def decode(
        self, latents: Tensor, size: Size | None = None, *, seeds: Sequence[int] | int = 0, allow_large: bool = False
    ) -> Tensor:
        """Pictures (B,3,H,W) float32 in [0,1] of latents, cropped to `size` (height, width) where given.

        Args:
            seeds: of a decoder that draws noise, one for all or one a row: those of a run give its pictures again.

        Raises:
            InputError: `too-much-work`, unless `allow_large`: see `prepare`; `batch-mismatch`: other seeds than rows.
        """
        check_latents(self.codec, latents, allow_large)
        remark_gradients({"latents": latents})
        asked = None if size is None else check_sides(size, axes=self.codec.axes)
        return decode_latents(self.codec, latents, asked, seeds=check_seeds(seeds))

    @uses_parts
    def conditioning(
        self,
        inputs: Inputs,
        *,
        negative: Inputs | None = None,
        size: Size,
        grad: bool = False,
        draws: Draws | None = None,
    ) -> Conditioning:
        """The encoded conditions of a batch, for pictures of (height, width); what training and tools build on.

        `size` has one number for each of the codec's axes: () for vectors.

        With `grad`, gradients reach the conditioners: for training them together with the denoiser. What is random in
        inputs (`ldmkit.Seeded`) is drawn from `draws`, a training batch's; without, it is what a run has by default.

        Raises:
            CompositionError: `placed`: gradients for weights that are placed.
        """
        if grad is True and any(part.placed is not None for part in self.conditioners.values()):
            what = "weights that are placed cannot be trained: they are not always there"
            raise CompositionError("placed", what, where="grad", fits="the pipeline that this one was placed from")
        size, grad = check_sides(size, axes=self.codec.axes), instance_of(grad, bool, "grad")
        parsed = parse_rows(self.parts, self.wiring, mappings(inputs, "inputs"), "inputs")
        if draws is not None:
            parsed = drawn_rows(self.inputs, parsed, draws.seeds("conditions"), training=True)
        given = mappings({} if negative is None else negative, "negative")
        dropped = parse_negatives(self.parts, self.wiring, given, len(parsed))
        return encode_conditions(self.parts, self.wiring, parsed, dropped, size, grad=grad)

    @uses_parts
    def prepare(self, inputs: Inputs | None = None, **options: Any) -> Prepared:
        """Everything of a call up to the first step, and what it will take (`Prepared.estimate`); options as in
        `__call__`.

        Raises:
            InputError: an argument or input that cannot be used; `too-much-work`: a run that this machine has no memory
                for, or that nobody means, with its estimate.
        """
        return prepare_run(self, inputs, options)

    def stream(self, inputs: Inputs | None = None, **options: Any) -> Iterator[Step]:
        """The steps of a call, one by one, for previews, progress and cancelling; options as in `__call__`.

        Arguments are checked and conditions encoded at once; the network runs as the steps are asked for.
        """
        return self.steps(self.prepare(inputs, **options))

    def steps(self, prepared: Prepared, taken: Evaluations | None = None) -> Iterator[Step]:
        """The steps of what `prepare` made ready, one by one; `finish` makes its output of the last.

        Args:
            taken: filled with what the run takes of the network.
        """
        check_prepared(prepared)
        return Stream(self._steps(prepared, copies=True, taken=taken))

    @own_arguments
    def __call__(
        self,
        inputs: Inputs | None = None,
        *,
        negative: Inputs | None = None,
        size: int | Size | None = None,
        seeds: Sequence[int] | int = (0,),
        steps: int | None = None,
        start: Starting = None,
        sampler: Strategy = None,
        grid: Strategy = None,
        guidance: Strategy | float = None,
        cache: Strategy = None,
        propose: bool = True,
        allow_large: bool = False,
        on_step: Callable[[Step], None] | None = None,
    ) -> Output:
        """Draw pictures.

        Args:
            inputs: input name -> value, or a list of such mappings (a batch).
            negative: inputs to move away from; they take the place of the null. One mapping, or one a picture.
            size: (height, width) in pixels, or (frames, height, width) where the model draws videos; sizes that do not
                fit the codec are padded and cropped back. Vectors have none.
            seeds: one a picture; one seed serves all inputs, one input serves all seeds.
            steps: transitions of the sampler; None: the model's own number, or the one that an explicit grid makes.
            start: picture to start from, with strength and mask: a `Start`, a mapping of its fields, a picture, latents
                (`{"latents": ...}`), an `Output`, or a list of these, one a picture.
            sampler, grid: a name, a value, or a spec.
            guidance: the same, or a scale, or one scale a condition.
            cache: a name, a value or a spec: which calls of the network are answered from earlier ones; None: none.
            propose: let conditioners make up inputs that are not given (boxes from a text), where the model has such.
            allow_large: run what the machine has no memory for by the estimate, or what looks like a mistake.
            on_step: called after every step.

        Raises:
            InputError: an argument or input that cannot be used; `unknown-argument`: one that a call does not have,
                with ours for it, as other libraries have other names.
            RunError: NaN or infinity (naming stage and step), or memory exhausted.
        """
        _check_on_step(on_step)
        prepared = self.prepare(
            inputs, negative=negative, size=size, seeds=seeds, steps=steps,
            start=start, sampler=sampler, grid=grid, guidance=guidance, cache=cache,
            propose=propose, allow_large=allow_large,
        )  # fmt: skip
        return self.run(prepared, on_step)

    def many(self, requests: Iterable[Mapping[str, Any]], *, batch: int = 8, **common: Any) -> Iterator[Drawn]:
        """Draw any number of pictures as they are asked for: in order, each with its recipe, in bounded memory.

        Requests that agree in size, steps and strategies are drawn in one batch, out of those that are read ahead. A
        picture has the pixels of a call of its own, within the rounding of larger batches. A request that cannot be
        drawn is yielded with its error, and the others are drawn.

        Args:
            requests: one mapping a picture, of a call's arguments: `inputs`, `seed`, `size`, `steps`, `sampler` ...
                They may come from a generator without end: four batches are read ahead.
            batch: pictures at once, at most.
            common: arguments of all requests that do not say.

        Raises:
            InputError: `batch-size`; whatever `requests` itself raises, after what was read before is drawn.
        """
        return draw_many(self, self._draw, requests, batch, common)

    @uses_parts
    def _draw(self, asked: Asked) -> Output:
        """Draw a call that was understood."""
        return self.run(prepare_asked(self, asked))

    @uses_parts
    def run(self, prepared: Prepared, on_step: Callable[[Step], None] | None = None) -> Output:
        """Run what `prepare` made ready; it may be run again, with the same result."""
        check_prepared(prepared)
        _check_on_step(on_step)
        last, taken = None, Evaluations()
        for last in self._steps(prepared, taken=taken):
            if on_step is not None:
                on_step(last.copied())
        if last is None:
            raise RunError("no-steps", f"sampler {type(prepared.request.sampler).__name__} yielded no step")
        return self.finish(prepared, last, taken)

    @uses_parts
    def finish(self, prepared: Prepared, last: Step, taken: Evaluations | None = None) -> Output:
        """The output of a run from its last step; `taken` is what `Prepared.steps` has filled."""
        check_prepared(prepared)
        check_step(last, prepared.x, prepared.request.sampler)
        if any(prepared.request.negative) and not prepared.evaluate.dropped:
            warnings.warn(
                "the negative input had no effect: this guidance never looks at it", stacklevel=caller_level()
            )
        latents = self.process.settled(last.x, last.sigma_next)
        with watched(lambda: part_name("codec", self.codec), self.device):
            images = decode_latents(self.codec, latents, prepared.size, seeds=prepared.request.seeds).cpu()
        images, plain = with_kept(self, prepared, images)
        recipes = partial(make_recipes, self, prepared.request, prepared.size)
        return Output(images, latents.cpu(), recipes, self.codec if plain else None, self.codec.visual, taken)

    def save(self, folder: str | Path, *, store: torch.dtype | None = None) -> Path:
        """Write a folder that `ldmkit.load` reads: spec, safetensors, vocabularies.

        Args:
            store: dtype of floating weights in the files, to make them smaller; loaded, they have today's dtype again.

        Raises:
            CompositionError: `placed-rounded`: a placement changed dtypes or rounded weights. Other placements are not
                saved, and weights are what they were.
        """
        check_exact(self.rounded, "save")
        return save_pipeline(self.parts, self.spec, path_of(folder, "folder"), store)

    @classmethod
    def load(cls, source: str | Path, **options: Any) -> Pipeline:
        """The same as `ldmkit.load`."""
        return cls(**read_model(source, **options))

    def _steps(
        self, prepared: Prepared, *, copies: bool = False, taken: Evaluations | None = None
    ) -> Generator[Step, None, None]:
        listener = step_listener(self)
        every = self.device.type == "cpu"  # elsewhere a look at the numbers would stall the queue
        step, sampler = None, prepared.request.sampler
        with (
            blaming(),
            explain_mixed_tensors(self.parts.items()),
            using(self.parts.items().values()),
            in_use([self.denoiser]),
            memory("denoiser", f"latents {tuple(prepared.x.shape)}"),
        ):
            check_current(prepared, self.denoiser)
            others = [part for part in self.parts.items().values() if part is not self.denoiser]
            for step in watched_steps(evaluated(others, prepared.steps(taken)), prepared, self.device):
                check_step(step, prepared.x, sampler)
                if (every or step.index + 1 == step.count) and not is_finite(step.x):
                    with evaluating(modules_of([self.denoiser, *others])):
                        raise blamed(prepared, step)
                if listener is not None:
                    listener(step.copied())
                yield step.copied() if copies else step
        check_end(step, prepared.sigmas, sampler)


def _check_on_step(on_step: object) -> None:
    if on_step is not None:
        check_callback(on_step, "on_step", "a function of one Step")
