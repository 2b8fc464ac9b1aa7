"""The pipeline: a composed model that can encode, sample, decode and be saved. Threads may share one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
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
from ldmkit.models.sharing import note_owner, remark_shared
from ldmkit.models.spec import ConditionerSpec, Defaults
from ldmkit.models.varied import Varied
from ldmkit.plugins.hooks import manager, step_listener
from ldmkit.run.assigning import Unassignable
from ldmkit.run.blame import blame_nan
from ldmkit.run.busy import moving, uses_parts, using
from ldmkit.run.callbacks import Callback
from ldmkit.run.conditioning import Conditioning
from ldmkit.run.extracting import extract_rows
from ldmkit.run.faults import blaming
from ldmkit.run.generators import watched, watched_steps
from ldmkit.run.gradients import remark_gradients
from ldmkit.run.guards import check_end, check_step, is_finite, part_name
from ldmkit.run.inpaint import with_kept
from ldmkit.run.inputs import encode_conditions, parse_negatives, parse_rows
from ldmkit.run.latents import batch_of, check_codec, check_latents, decode_latents, encode_pictures
from ldmkit.run.levels import leftover
from ldmkit.run.many import Drawn, draw_many
from ldmkit.run.modes import evaluated, evaluating, modules_of
from ldmkit.run.output import Output
from ldmkit.run.prepare import Asked, ask, check_count, prepare_asked, prepare_run
from ldmkit.run.prepared import Prepared, Stream, check_current, check_prepared
from ldmkit.run.recipe import make_recipes, only_recipe
from ldmkit.run.request import Inputs, Starting, Strategy, check_seeds, mappings
from ldmkit.run.sizes import Size, fitted
from ldmkit.run.spellings import no_attribute, own_arguments


class Pipeline(Unassignable, Varied):
    """A compatible set of a codec, a denoiser, conditioners and a process.

    Build one with `ldmkit.load(...)` or `Pipeline.of(...)`. No call changes it. Its attributes are those of `Composed`.
    """

    def _ready(self) -> None:
        if self.defaults.size is not None:
            check_axes(self.defaults.size, self.codec.axes, "defaults.size")
        for conditioner in self.conditioners.values():
            bind(conditioner, self.codec)
        hold_adapters(self, self.parts)
        note_owner(self, self.parts.items())
        self._made = True
        manager().hook.ldmkit_pipeline_built(pipeline=self)

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(type(self).__name__, name)

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
            wiring: conditioner name -> slot, null, input (see `ConditionerSpec`; `type` may be omitted).
            defaults: default sampler, grid, guidance, steps and size of calls.

        Raises:
            CompositionError: two parts are incompatible; the message names both.
        """
        given, added = mapped_parts(codec, denoiser, process, conditioners, adapters)
        wires = wired(given, wiring)
        parts = fit(wires, codec, denoiser, process, given, added)
        return cls(parts, wires, Defaults.of({} if defaults is None else defaults, "defaults"))

    def to(self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move or convert every part in place, like `nn.Module.to`; returns the pipeline itself.

        Pipelines derived from one another (`with_`, `with_adapter`, `planned`, `fused` ...) share modules, so this also
        moves or converts modules of the others. Converting weights of another pipeline in use gives a warning.

        Raises:
            RunError: `busy`: a run of this or another pipeline on the same parts is in progress.
            CompositionError: `placed`: a dtype for parts that are placed, which `placed` can give.
        """
        return self._moved(device, dtype, (self,))

    def _moved(self, device: Any, dtype: Any, together: Collection[object]) -> Self:
        """`to`, of a pipeline that is moved together with others."""
        device, dtype = destination(device, dtype)
        parts = self.parts.items().values()
        if dtype is not None and any(part.placed is not None for part in parts):
            fits = 'pipeline.placed({"denoiser": "streamed+bfloat16"}), or to(dtype=...) first'
            raise CompositionError("placed", "weights that are placed are not converted", where="dtype", fits=fits)
        if dtype is not None:
            remark_shared(self.parts.items(), dtype, together)
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

        For a codec of other data (videos, vectors), a batch (B,data_channels,*axes).

        Raises:
            InputError: `too-much-work`, unless `allow_large` (see `prepare`); `data-shape`: not such a batch.
        """
        batch = batch_of(self.codec, images)
        remark_gradients({"images": images})
        check_codec(self.codec, len(batch), tuple(batch.shape[2:]), "encode", allow_large)
        return encode_pictures(self.codec, fitted(batch, self.codec), noise)

    @uses_parts
    def decode(
        self, latents: Tensor, size: Size | None = None, *, seeds: Sequence[int] | int = 0, allow_large: bool = False
    ) -> Tensor:
        """Pictures (B,3,H,W) float32 in [0,1] decoded from latents, cropped to `size` (height, width) if given.

        Args:
            seeds: for a decoder that draws noise, one seed for all rows or one per row; with the seeds of a run its
                pictures are reproduced.

        Raises:
            InputError: `too-much-work`, unless `allow_large` (see `prepare`); `batch-mismatch`: wrong number of seeds.
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
        """The encoded conditions of a batch, for pictures of (height, width); for training and tools.

        `size` has one number per axis of the codec: () for vectors.

        With `grad`, gradients reach the conditioners: for training them together with the denoiser. What is random in
        inputs (`ldmkit.Seeded`) is drawn from `draws`, a training batch's; without, it is what a run has by default.

        Raises:
            CompositionError: `placed`: gradients for weights that are placed.
        """
        if grad is True and any(part.placed is not None for part in self.conditioners.values()):
            what = "weights that are placed cannot be trained: they are not always there"
            raise CompositionError("placed", what, where="grad", fits="the pipeline that this one was placed from")
        size, grad = check_sides(size, axes=self.codec.axes), instance_of(grad, bool, "grad")
        rows, _ = extract_rows(mappings(inputs, "inputs"), "inputs")
        parsed = parse_rows(self.parts, self.wiring, rows, "inputs")
        if draws is not None:
            parsed = drawn_rows(self.inputs, parsed, draws.seeds("conditions"), training=True)
        given, _ = extract_rows(mappings({} if negative is None else negative, "negative"), "negative")
        dropped = parse_negatives(self.parts, self.wiring, given, len(parsed))
        return encode_conditions(self.parts, self.wiring, parsed, dropped, size, grad=grad)

    @uses_parts
    def prepare(self, inputs: Inputs | None = None, **options: Any) -> Prepared:
        """Prepare a call up to its first step, including an estimate of its cost (`Prepared.estimate`); options as for
        `__call__`.

        Raises:
            InputError: an invalid argument or input; `too-much-work`: the run does not fit in memory or is unreasonably
                large; the message contains its estimate.
        """
        return prepare_run(self, inputs, options)

    def stream(self, inputs: Inputs | None = None, **options: Any) -> Iterator[Step]:
        """An iterator over the steps of a call, for previews, progress and cancelling; options as for `__call__`.

        Arguments are checked and conditions encoded at once; the network runs as the iterator is advanced.
        """
        return self.steps(self.prepare(inputs, **options))

    def steps(self, prepared: Prepared, taken: Evaluations | None = None) -> Iterator[Step]:
        """An iterator over the steps of a prepared run; `finish` turns the last step into the output.

        Args:
            taken: counts the run's network evaluations.
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
        rewrite: Strategy = None,
        propose: bool = True,
        allow_large: bool = False,
        on_step: Callable[[Step], None] | None = None,
    ) -> Output:
        """Draw pictures.

        Args:
            inputs: input name -> value, or a list of such mappings (a batch).
            negative: inputs to move away from, which replace the null; one mapping, or one per picture.
            size: (height, width) in pixels, or (frames, height, width) for videos; sizes that do not fit the codec are
                padded, and the result is cropped. Not applicable to vectors.
            seeds: one per picture; a single seed is used for all inputs, and a single input for all seeds.
            steps: transitions of the sampler; None for the model's default, or the number of an explicit grid.
            start: data to start from, with strength and mask: a `Start`, a mapping of its fields, a picture, latents
                (`{"latents": ...}`), an `Output`, or a list of these, one per picture.
            sampler, grid: a name, a value, or a spec.
            guidance: a name, a value or a spec, or a scale, or one scale per condition.
            cache: a name, a value or a spec of a cache that replaces some network calls; None for no cache.
            rewrite: a name, a value or a spec of a rewriter of prompts (`Output.revised_prompts`); None for none.
            propose: let conditioners propose inputs that are not given (boxes from a text), if the model supports it.
            allow_large: run even if the estimate exceeds the memory or looks like a mistake.
            on_step: called after every step; its result is ignored.

        Raises:
            InputError: an invalid argument or input; `unknown-argument`: an unknown argument, with the equivalent for
                names from other libraries.
            RunError: NaN or infinity (with stage and step), or out of memory.
        """
        _check_on_step(on_step)
        prepared = self.prepare(
            inputs, negative=negative, size=size, seeds=seeds, steps=steps,
            start=start, sampler=sampler, grid=grid, guidance=guidance, cache=cache,
            rewrite=rewrite, propose=propose, allow_large=allow_large,
        )  # fmt: skip
        return self.run(prepared, on_step)

    def many(self, requests: Iterable[Mapping[str, Any]], *, batch: int = 8, **common: Any) -> Iterator[Drawn]:
        """Draw any number of pictures lazily: in order, each with its recipe, in bounded memory.

        Requests with equal size, steps and strategies are batched, among those read ahead. Each picture equals that of
        a separate call, up to the rounding of larger batches. A request that cannot be drawn is yielded with its error,
        and the others are drawn.

        Args:
            requests: one mapping of call arguments per picture: `inputs`, `seed`, `size`, `steps`, `sampler` ... May be
                an infinite generator; four batches are read ahead. As in a call, the seed is 0 if none is given, so
                equal requests need seeds to draw different pictures.
            batch: maximum number of pictures per batch.
            common: default arguments of all requests.

        Raises:
            InputError: `batch-size`. An exception from `requests` is raised after the requests read before are drawn.
        """
        return draw_many(self, self._draw, requests, batch, common)

    @uses_parts
    def _draw(self, asked: Asked) -> Output:
        """Run a call whose arguments have been checked."""
        return self.run(prepare_asked(self, asked))

    def recipe(self, inputs: Inputs | None = None, **options: Any) -> dict[str, Any]:
        """The recipe that the picture of a call would have, without drawing it; inputs that conditioners make up
        (`propose`) are not in it.

        Raises:
            InputError: as `prepare`; `batch-mismatch`: it draws several pictures.
        """
        asked = ask(self, inputs, options)
        return only_recipe(make_recipes(self, asked.resolved(), asked.size))

    def check_count(self, inputs: Inputs | None = None, **options: Any) -> None:
        """Refuse more pictures than anyone means (`too-much-work`), before a row of them is looked at."""
        check_count(self, inputs or {}, options)

    @uses_parts
    def run(self, prepared: Prepared, on_step: Callable[[Step], None] | None = None) -> Output:
        """Run a prepared call; it may be run repeatedly, with the same result."""
        check_prepared(prepared)
        tell = None if on_step is None else Callback(on_step)
        last, taken = None, Evaluations()
        for last in self._steps(prepared, taken=taken):
            if tell is not None:
                tell(last.copied())
        if last is None:
            raise RunError("no-steps", f"sampler {type(prepared.request.sampler).__name__} yielded no step")
        return self.finish(prepared, last, taken)

    @uses_parts
    def finish(self, prepared: Prepared, last: Step, taken: Evaluations | None = None) -> Output:
        """The output of a run from its last step; `taken` has the evaluations counted by `Prepared.steps`."""
        check_prepared(prepared)
        check_step(last, prepared.x, prepared.request.sampler)
        if any(prepared.request.negative) and not prepared.evaluate.dropped:
            warnings.warn(
                "the negative input had no effect, because this guidance does not use it", stacklevel=caller_level()
            )
        latents = self.process.settled(last.x, last.sigma_next)
        with watched(lambda: part_name("codec", self.codec), self.device):
            images = decode_latents(self.codec, latents, prepared.size, seeds=prepared.request.seeds).cpu()
        images, plain = with_kept(self, prepared, images)
        recipes = partial(make_recipes, self, prepared.request, prepared.size)
        codec, left = self.codec if plain else None, leftover(last.sigma_next, self.process)
        return Output(images, latents.cpu(), recipes, codec, self.codec.visual, taken, left)

    def save(self, folder: str | Path, *, store: torch.dtype | None = None) -> Path:
        """Write a folder that `ldmkit.load` reads: spec, safetensors, vocabularies.

        Args:
            store: dtype of floating-point weights in the files, to make them smaller; when loaded they are converted
                back to the current dtype.

        Raises:
            CompositionError: `placed-rounded`: a placement changed dtypes or rounded weights. Other placements are not
                saved and do not affect the weights.
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
        every = self.device.type == "cpu"  # on other devices the check would synchronise
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
                        raise blame_nan(prepared, step)
                if listener is not None:
                    listener(step.copied())
                yield step.copied() if copies else step
        check_end(step, prepared.sigmas, sampler)


def _check_on_step(on_step: object) -> None:
    if on_step is not None:
        check_callback(on_step, "on_step", "a function of one Step")
