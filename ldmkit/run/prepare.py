"""Preparation of a run from the arguments of a call: resolving, checking, estimating and encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ldmkit.bounds import MAX_BATCH
from ldmkit.contracts.arguments import instance_of
from ldmkit.contracts.axes import shown_size
from ldmkit.contracts.conditioner_abilities import SetsSize
from ldmkit.contracts.seeded import drawn_rows
from ldmkit.contracts.step import Run
from ldmkit.errors import InputError
from ldmkit.models.abilities import able
from ldmkit.models.composed import Composed
from ldmkit.models.memory import memory
from ldmkit.run.acting import remark_adapters, remark_guidance
from ldmkit.run.caching import check_cache
from ldmkit.run.denoise import Evaluator, Guided
from ldmkit.run.encodings import Encodings
from ldmkit.run.estimate import Estimate, check_estimate, estimate_run
from ldmkit.run.extracting import with_hints
from ldmkit.run.generators import watched
from ldmkit.run.gradients import remark_gradients
from ldmkit.run.guards import check_levels, part_name
from ldmkit.run.inpaint import KnownRegion, known_latents, known_pictures, latent_mask
from ldmkit.run.inputs import encode_conditions, input_name, parse_negatives, parse_rows, proposals
from ldmkit.run.latents import decoded, seeds_of_rows
from ldmkit.run.levels import check_continued, check_range
from ldmkit.run.locks import remark_distilled, remark_locked
from ldmkit.run.noise import Noise
from ldmkit.run.owning import owned_rows
from ldmkit.run.prepared import Prepared
from ldmkit.run.remarks import remark, remark_call
from ldmkit.run.request import Choices, Inputs, Request, Resolved, length, resolve
from ldmkit.run.rewriting import with_rewriting
from ldmkit.run.sizes import Size, check_smallest, choose, crop, latent_size
from ldmkit.run.spellings import check_arguments
from ldmkit.run.starts import Start, size_for

T = TypeVar("T")

ARGUMENTS = (
    *("inputs", "negative", "size", "seeds", "steps", "start", "sampler", "grid", "guidance", "cache"),
    *("propose", "allow_large", "rewrite"),
    "on_step",
)
"""The arguments of a call; `prepare` and `stream` do not take `on_step`."""


class Asked(NamedTuple):
    """A call with checked arguments, before anything is encoded.

    Args:
        request: its arguments, with raw inputs.
        parsed, negative: parsed inputs of each picture.
        size: (height, width) of the pictures; for other data one number per axis of the codec.
        large: whether limits on memory and work are ignored (`allow_large`).
    """

    request: Request
    parsed: list[Mapping[str, Any]]
    negative: list[Mapping[str, Any]]
    size: Size
    large: bool

    def resolved(self, proposed: Sequence[Mapping[str, Any]] | None = None) -> Resolved:
        """The call as it is run; `proposed`: inputs proposed by conditioners, one mapping per picture."""
        made_up = tuple(proposed or ({},) * self.request.batch)
        return Resolved.of(self.request, inputs=tuple(self.parsed), negative=tuple(self.negative), proposed=made_up)

    @classmethod
    def joined(cls, calls: Sequence[Asked]) -> Asked:
        """Several calls that agree in all but their inputs, seeds and starts, as one call of all their pictures."""
        requests = [call.request for call in calls]
        request = replace(
            requests[0],
            inputs=_chained(one.inputs for one in requests),
            negative=_chained(one.negative for one in requests),
            seeds=_chained(one.seeds for one in requests),
            starts=_chained(one.starts for one in requests),
            extracted=_chained(one.extracted for one in requests),
            negative_extracted=_chained(one.negative_extracted for one in requests),
            rewritten=_chained(one.rewritten or ({},) * one.batch for one in requests),
        )
        parsed = [row for call in calls for row in call.parsed]
        return calls[0]._replace(request=request, parsed=parsed, negative=[row for c in calls for row in c.negative])


def ask(pipeline: Composed, inputs: Inputs | None, options: Mapping[str, Any]) -> Asked:
    """Check, resolve and parse the arguments of a call, and choose the size.

    Raises:
        InputError, SpecError, PluginError: as `Pipeline.prepare`.
    """
    own = pipeline.inputs
    check_arguments(options, ARGUMENTS[:-1], own)
    if inputs is None:
        fits = f"a mapping from input name to value: {', '.join(own) or '{}'}"
        raise InputError("not-a-mapping", "got NoneType", where="inputs", fits=fits)
    allow = instance_of(options.get("allow_large", False), bool, "allow_large")
    given = {name: value for name, value in options.items() if name not in ("allow_large", "rewrite")}
    if not allow:
        check_count(pipeline, inputs, given)
    request = with_hints(resolve(pipeline.defaults, inputs, **given, codec=pipeline.codec))
    request = with_rewriting(request, own, options.get("rewrite"))
    remark_locked(pipeline.defaults, request, given)
    remark_distilled(pipeline.defaults, request)
    check_cache(request)
    parsed = owned_rows(parse_rows(pipeline.parts, pipeline.wiring, request.inputs, "inputs"))
    negative = owned_rows(parse_negatives(pipeline.parts, pipeline.wiring, request.negative, request.batch))
    given_as = {name: options.get(name) for name in ("start", "guidance")}  # looked into after they were found readable
    remark_gradients({"inputs": request.inputs, "negative": request.negative, **given_as})
    return Asked(request, parsed, negative, _size(pipeline, request, parsed), allow)


def prepare_run(pipeline: Composed, inputs: Inputs | None, options: Mapping[str, Any]) -> Prepared:
    """See `Pipeline.prepare`."""
    return prepare_asked(pipeline, ask(pipeline, inputs, options))


def check_asked(pipeline: Composed, asked: Asked) -> Estimate:
    """The estimate for a call, after checking limits and the smallest size.

    Raises:
        InputError: `too-much-work`, `size-small`.
    """
    estimate = _estimate(pipeline, asked.request, asked.size, asked.request.batch)
    check_estimate(estimate, "size", asked.large)
    check_smallest(asked.size, pipeline.codec, pipeline.denoiser.smallest)
    return estimate


def prepare_asked(pipeline: Composed, asked: Asked, known: Encodings | None = None) -> Prepared:
    """A prepared run from a resolved call; conditions found in `known` are not encoded again."""
    request, parsed, negative, size, _ = asked
    parts, wiring = pipeline.parts, pipeline.wiring
    estimate = check_asked(pipeline, asked)
    remark(parsed, size, pipeline.defaults.size, pipeline.codec)
    going_on = bool(request.starts) and request.starts[0].noised is not None  # with what was proposed to its beginning
    making = request.propose and (going_on or not request.starts)
    proposed = proposals(parts, wiring, parsed, request.seeds, size) if making else [{} for _ in parsed]
    rows = [{**row, **more} for row, more in zip(parsed, proposed, strict=True)] if any(proposed) else parsed
    rows, negative = (drawn_rows(pipeline.inputs, one, request.seeds, training=False) for one in (rows, negative))
    with watched(lambda: _names(pipeline), pipeline.device):
        conditioning = encode_conditions(parts, wiring, rows, negative, size, known=known)
    cells = latent_size(size, pipeline.codec)
    run = Run(_sigmas(pipeline, request, cells), cells)
    evaluate = Evaluator(
        pipeline.denoiser, pipeline.process, conditioning, run,
        adapters=pipeline.adapters, network=pipeline.network,
        decode=partial(_decode, pipeline, size=size, seeds=request.seeds),
    )  # fmt: skip
    noise = Noise(request.seeds, (pipeline.codec.channels, *run.size), pipeline.device)
    views = request.views([name for name in evaluate.names if name not in evaluate.absent])
    if estimate.rows != views * request.batch:  # a conditioner proposed an input
        estimate = _estimate(pipeline, request, size, request.batch, views)
    checked = asked.resolved(proposed)
    remark_call(checked, pipeline.device.type, pipeline.inputs)
    remark_guidance(checked, evaluate.names, evaluate.absent, run.sigmas)
    remark_adapters(parts, wiring, checked, run)
    with (
        memory("start", f"latents {(request.batch, *noise.shape)}"),
        watched(lambda: _codec(pipeline), pipeline.device),
    ):
        return _started(pipeline, checked, size, run.sigmas, Guided(evaluate, request.guidance), noise, estimate)


def _chained(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(parts))


def _codec(pipeline: Composed) -> str:
    return part_name("codec", pipeline.codec)


def _names(pipeline: Composed) -> str:
    return " or ".join(part_name("conditioner", part) for part in pipeline.conditioners.values())


def check_count(pipeline: Composed, inputs: Inputs, options: Mapping[str, Any]) -> None:
    """Refuse an unreasonably large batch before reading its rows.

    Raises:
        InputError: `too-much-work`, with an estimate based on the first picture.
    """
    many = max(map(length, (inputs, options.get("seeds"), options.get("negative"), options.get("start"))))
    if many <= MAX_BATCH:
        return
    one = {name: value for name, value in options.items() if name not in ("seeds", "negative", "start")}
    first = inputs[:1] if isinstance(inputs, Sequence) else inputs
    request = with_hints(resolve(pipeline.defaults, first, **one, codec=pipeline.codec))
    parsed = parse_rows(pipeline.parts, pipeline.wiring, request.inputs, "inputs")
    check_estimate(_estimate(pipeline, request, _size(pipeline, request, parsed), many), "seeds", False)


def _size(pipeline: Composed, request: Request, parsed: Sequence[Mapping[str, Any]]) -> Size:
    plane, own = _plane_size(pipeline, parsed), pipeline.defaults.size
    if not request.starts:
        return choose(request.size, None, plane, own, pipeline.codec)
    said = request.size or request.start_size  # of which latents may hold a padded picture

    def size_of(start: Start) -> Size:
        own = size_for(start, pipeline.codec)
        if start.latents is None or said is None or latent_size(said, pipeline.codec) != start.latents.shape[1:]:
            return own
        return said

    sizes = {size_of(start) for start in request.starts}
    if len(sizes) > 1:
        listed = ", ".join(map(shown_size, sorted(sizes)))
        fits = "pictures of the same size in a batch"
        raise InputError("picture-sizes", f"starts of {listed} (height x width)", where="start", fits=fits)
    return choose(request.size, sizes.pop(), plane, own, pipeline.codec)


def _estimate(pipeline: Composed, request: Request, size: Size, pictures: int, views: int | None = None) -> Estimate:
    if views is None:
        names = {input_name(name, pipeline.wiring[name]) for name in pipeline.conditioners}
        given = [name for name in names if any(name in row for row in (*request.inputs, *request.negative))]
        views = request.views(given)
    steps = max(1, int(request.steps * request.strength + 1e-9))
    return estimate_run(
        pipeline.codec, pipeline.denoiser, pipeline.parts.items().values(),
        pictures=pictures, views=views, apart=request.guidance.perturbed(()), steps=steps,
        evaluations=request.evaluations(steps),
        size=size, starts=len({id(start) for start in request.starts}),
    )  # fmt: skip


def _plane_size(pipeline: Composed, rows: Sequence[Mapping[str, Any]]) -> Size | None:
    """The picture size determined by the given condition planes."""
    for name, conditioner in pipeline.conditioners.items():
        key = input_name(name, pipeline.wiring[name])
        given = next((row[key] for row in rows if key in row), None)
        if conditioner.kind != "plane" or given is None or not pipeline.codec.axes:
            continue
        sizing = able(conditioner, SetsSize)
        if sizing is not None and (size := sizing.picture_size(given, pipeline.codec.axes[-1].factor)) is not None:
            return size
    return None


def _sigmas(pipeline: Composed, request: Choices, cells: tuple[int, ...]) -> tuple[float, ...]:
    sigmas = check_levels(request.grid.at_size(cells).sigmas(pipeline.process, request.steps), request.grid)
    check_range(sigmas, pipeline.process, bool(request.starts))
    if not request.starts:
        return tuple(sigmas)
    if (held := request.starts[0].noised) is not None:
        check_continued(sigmas, held)
    count = len(sigmas) - 1
    run = int(count * request.strength + 1e-9)
    if run == 0:
        fits = f"a strength of at least {1 / count:.3g}, or more steps"
        raise InputError("strength-too-small", "no steps would be run", where="start.strength", fits=fits)
    return tuple(sigmas[count - run :])


def _started(
    pipeline: Composed, request: Resolved, size: Size, sigmas: tuple[float, ...], denoise: Guided, noise: Noise,
    estimate: Estimate,
) -> Prepared:  # fmt: skip
    unit, evaluate = noise(0, "start"), denoise.evaluate
    if not request.starts:
        x = pipeline.process.prior(unit, sigmas[0])
        return Prepared(request, size, sigmas, x, denoise, noise, evaluate, estimate)
    known = known_latents(pipeline, request.starts, size)
    if request.starts[0].noised is None:
        x = known + sigmas[0] * unit
    else:  # the state that `Process.settled` scaled
        x = known / float(pipeline.process.settled(torch.ones(1), sigmas[0]))
    if all(start.mask is None for start in request.starts):
        return Prepared(request, size, sigmas, x, denoise, noise, evaluate, estimate)
    original, mask = known_pictures(pipeline, request.starts, known, size, request.seeds)
    region = latent_mask(mask, pipeline.codec).to(pipeline.device)
    inpaint = KnownRegion(denoise, known, region)
    return Prepared(request, size, sigmas, x, inpaint, noise, evaluate, estimate, original, mask)


def _decode(pipeline: Composed, latents: Tensor, size: Size, seeds: Sequence[int]) -> Tensor:
    """Pictures decoded from latents, with gradients; a decoder's noise is the same in every step of a run."""
    given = latents.to(pipeline.codec.dtype)
    return crop(decoded(pipeline.codec, given, seeds_of_rows(seeds, len(given), "latents")), size)
