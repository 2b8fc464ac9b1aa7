"""The suite of guidance: laws of its scale, honest costs, one batch, and no side effects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.guidance import Guidance, View
from ldmkit.contracts.process import Process
from ldmkit.contracts.step import Run
from ldmkit.errors import SpecError
from ldmkit.testing.blind import Looked, blind, other_device
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail, report
from ldmkit.testing.reference import Reference
from ldmkit.testing.tensors import expect_close, expect_equal

SHAPE = (3, 8, 8)
"""Of one latent; the codec of the checks is the identity, so pictures have it too."""
PROCESS = Reference(prediction="eps")
NOTHING: View = frozenset()


@dataclass(frozen=True)
class Subject:
    """Guidance to be checked, and the names of the conditions that it is for; () where it is for any."""

    guidance: Guidance
    names: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions of the model that it is checked with."""
        return self.names or ("text", "layout")


def subject(cls: type[Guidance], example: Example) -> Subject:
    """What the checks take, from guidance's class and one of its examples, whose `inputs` are names of conditions."""
    return Subject(cls.of(example.config), tuple(example.inputs))


def check_guidance(
    cls: type[Guidance], config: Mapping[str, Any] | None = None, *, names: Sequence[str] = ()
) -> Report:
    """Check guidance with these fields; with those of its first example where none are given.

    Args:
        names: conditions that it is for, where it is not for any.
    """
    example = cls.examples[0] if config is None else Example(config, tuple(names))
    return report("guidance", cls.__name__, subject(cls, example))


class Model:
    """`evaluate` of an invented model, for one run: every condition that is kept moves the estimate in its own way.

    It remembers the views of every call, the grad mode, and each tensor that it gave with a copy.
    """

    process: Process = PROCESS

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self.calls: list[tuple[View, ...]] = []
        self.states: list[Tensor] = []
        self.differentiated = False
        self.decoded = False
        self.given: list[tuple[Tensor, Tensor]] = []
        self.run = Run(tuple(_levels()[::-1]), SHAPE[1:])
        self.memory: dict[Any, Any] = {}

    def __call__(self, x: Tensor, sigma: float, *views: View) -> list[Tensor]:
        self.calls.append(views)
        self.states.append(x)
        self.differentiated |= torch.is_grad_enabled() and x.requires_grad
        found = [self.estimate(x, sigma, view) for view in views]
        if x.device.type != "meta":
            self.given += [(tensor, tensor.detach().clone()) for tensor in found]
        return found

    def estimate(self, x: Tensor, sigma: float, view: View) -> Tensor:
        """x0 of one view: a smooth function of the state, shifted and bent by the conditions that are kept."""
        kept = [i + 1 for i, name in enumerate(self.names) if name not in view]
        shrunk = x / (1 + sigma * sigma)
        return shrunk + 0.3 * torch.sin(shrunk * (1 + sum(kept))) + 0.2 * math.prod(kept or [0])

    def decode(self, latents: Tensor) -> Tensor:
        """The identity codec."""
        self.decoded = True
        return latents


def _levels() -> list[float]:
    """Noise levels from one end of the process to the other, densely enough to meet every interval."""
    low, high = math.log(PROCESS.sigma_min), math.log(PROCESS.sigma_max)
    return [math.exp(low + (high - low) * i / 30) for i in range(31)]


def _state(sigma: float, rows: int = 2, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn((rows, *shape), generator=generator).to(dtype) * math.hypot(1, sigma)


def _ask(guidance: Guidance, model: Model, x: Tensor, sigma: float) -> Tensor:
    """As a run calls it: without gradients."""
    with torch.no_grad():
        return guidance(model, x, sigma)


def _plain(subject: Subject, scale: float) -> Guidance:
    found = subject.guidance.plain(scale)
    if found is None:
        raise NotApplicable("`plain` is None: it has no form with one scale")
    return found


def _expect_law(subject: Subject, scale: float, names: tuple[str, ...], what: str) -> None:
    """The plain form at a scale is without + scale (conditional - without)."""
    guidance = _plain(subject, scale)
    for sigma in (0.1, 1.0, 8.0):
        model, x = Model(names), _state(sigma)
        conditional, without = (model.estimate(x, sigma, view) for view in (NOTHING, frozenset(names)))
        wanted = without + scale * (conditional - without)
        expect_close(_ask(guidance, model, x, sigma), wanted, f"{what}, at sigma {sigma}", 1e-9)


@check("guidance", "conditional")
def conditional(subject: Subject) -> None:
    """At scale 1 the result is the conditional estimate.

    `plain(scale)` is the guidance at one scale for all of its conditions and without options. By default it is a copy
    with another field `scale`; override it where the field has another name, or where 1 means something else.
    """
    _expect_law(subject, 1.0, subject.conditions, "the result at scale 1, and the conditional estimate")


@check("guidance", "unconditional")
def unconditional(subject: Subject) -> None:
    """At scale 0 the result is the estimate without any condition.

    That is the view which drops every name in `evaluate.names` (or all that the guidance is for).
    """
    _expect_law(subject, 0.0, subject.conditions, "the result at scale 0, and the unconditional estimate")


@check("guidance", "single")
def single(subject: Subject) -> None:
    """With a single condition it is classifier-free guidance: without + scale (conditional - without).

    Scales then mean the same in every rule, and a recipe can change the rule and keep them. Note that some papers
    write w = scale - 1.
    """
    if len(subject.names) > 1:
        raise NotApplicable("this example is for several conditions")
    for scale in (0.5, 3.0, 7.5):
        _expect_law(
            subject, scale, subject.conditions[:1], f"the result at scale {scale:g}, and classifier-free guidance"
        )


class _Alike(Model):
    """A model that its conditions do not move."""

    def estimate(self, x: Tensor, sigma: float, view: View) -> Tensor:
        return super().estimate(x, sigma, NOTHING)


def _later() -> list[float]:
    """Noise levels of a run after its first steps, in which a rule may do something of its own."""
    return _levels()[::-1][3:]


def _neutral(subject: Subject) -> Guidance:
    found = subject.guidance.neutral()
    if found is None:
        raise NotApplicable("`neutral` is None: no scale changes nothing")
    return found


@check("guidance", "neutral")
def neutral(subject: Subject) -> None:
    """At the scale that changes nothing the result is the conditional estimate, whatever the options.

    `neutral()` is the guidance at that scale with all of its options; by default `plain(1)`. A rule that rescales,
    projects or remembers must still leave the conditional estimate alone, within 1e-9.
    """
    guidance = _neutral(subject)
    model = Model(subject.conditions)
    for sigma in _levels()[::-1]:
        x = _state(sigma)
        wanted = model.estimate(x, sigma, NOTHING)
        expect_close(_ask(guidance, model, x, sigma), wanted, f"the neutral result at sigma {sigma:.4g}", 1e-9)


@check("guidance", "agreement")
def agreement(subject: Subject) -> None:
    """Where the conditional and the unconditional estimate are one, so is the result.

    There is nothing to strengthen then: within 1e-7, from the fourth step of a run on. A rule that has no neutral scale
    (`neutral`) adds something that is not a difference of estimates, and is not asked.
    """
    _neutral(subject)
    model = _Alike(subject.conditions)
    for sigma in _later():
        x = _state(sigma)
        wanted = model.estimate(x, sigma, NOTHING)
        expect_close(_ask(subject.guidance, model, x, sigma), wanted, f"the result at sigma {sigma:.4g}", 1e-7)


@check("guidance", "interval")
def interval(subject: Subject) -> None:
    """Outside of its `interval` (low, high], a field that every guidance should have, the conditional estimate is left.

    It is then the only view that is evaluated.
    """
    _neutral(subject)
    try:
        off = type(subject.guidance).of({**dict(subject.guidance), "interval": (1e5, 2e5)})
    except SpecError:
        raise NotApplicable("it has no field `interval` of noise levels") from None
    for sigma in _levels():
        model, x = Model(subject.conditions), _state(sigma)
        wanted = model.estimate(x, sigma, NOTHING)
        expect_close(
            _ask(off, model, x, sigma), wanted, f"the result outside of the interval, at sigma {sigma:.4g}", 1e-9
        )
        asked = {view for call in model.calls for view in call}
        expect(asked == {NOTHING}, "the conditional view alone outside of the interval", f"{len(asked)} views")


def _whole(guidance: Guidance, model: Model) -> Iterator[Tensor]:
    for sigma in _levels()[::-1]:
        yield _ask(guidance, model, _state(sigma), sigma)


@check("guidance", "memory")
def memory(subject: Subject) -> None:
    """A run gives the same twice, and beside another run, bit for bit: what is remembered is in `evaluate.memory`.

    Guidance is a value that threads share. Momentum and its like belong to a run: its memory is empty at the start, and
    the next run has another one.
    """
    guidance, names = subject.guidance, subject.conditions
    first = list(_whole(guidance, Model(names)))
    second = list(_whole(guidance, Model(names)))
    one, other = _whole(guidance, Model(names)), _whole(guidance, _Alike(names))
    beside = [pair[0] for pair in zip(one, other, strict=True)]
    for number, (wanted, again, aside) in enumerate(zip(first, second, beside, strict=True), start=1):
        expect_equal(again, wanted, f"step {number} of the same run a second time")
        expect_equal(aside, wanted, f"step {number} of the run beside another one")


@check("guidance", "views")
def views(subject: Subject) -> None:
    """`views(names)` is the largest number of different views that one call evaluates.

    Memory is planned, and the cost of a run printed, by it. Asked over the whole range of noise levels. Without any
    condition it is 1.
    """
    declared, most = subject.guidance.views(subject.conditions), 0
    for model, _, _ in _calls(subject):
        most = max([most, *(len(set(call)) for call in model.calls)])
    expect(most == declared, f"{declared} views at most, as declared for {subject.conditions}", f"{most}")
    none = subject.guidance.views(())
    expect(none == 1, "1 view where there are no conditions", f"{none}")


@check("guidance", "weights")
def weights(subject: Subject) -> None:
    """`weights(names, sigma)`, where it tells them, are the factors of the views that are evaluated, and add up to 1.

    A run warns by them of conditions, negatives and intervals that cannot act. None says that they are not told.
    """
    for sigma in _levels():
        told = subject.guidance.weights(subject.conditions, sigma)
        if told is None:
            raise NotApplicable("`weights` is None: it does not tell")
        model = Model(subject.conditions)
        _ask(subject.guidance, model, _state(sigma), sigma)
        asked = {view for call in model.calls for view in call}
        expect(set(told) == asked, f"weights of the views {sorted(map(sorted, asked))}", f"{told}")
        expect(all(told.values()), "no view with a factor of 0", f"{told}")
        expect(math.isclose(sum(told.values()), 1.0, abs_tol=1e-9), "factors that add up to 1", f"{told}")


def _calls(subject: Subject) -> Iterator[tuple[Model, Tensor, Tensor]]:
    """A model, a state and the result for every noise level."""
    for sigma in _levels():
        model, x = Model(subject.conditions), _state(sigma)
        yield model, x, _ask(subject.guidance, model, x, sigma)


@check("guidance", "one-batch")
def one_batch(subject: Subject) -> None:
    """All views are asked for in one call of `evaluate`, and each is made of names that the model has.

    Several calls are several batches of the network: half as fast on a GPU. A view is a frozenset of names out of
    `evaluate.names` that are dropped.
    """
    for model, _, _ in _calls(subject):
        expect(len(model.calls) == 1, "one call of evaluate", f"{len(model.calls)}")
        for view in model.calls[0]:
            expect(isinstance(view, frozenset), "views that are frozensets", f"{view!r}")
            unknown = view - set(subject.conditions)
            expect(not unknown, f"names out of {subject.conditions}", f"{sorted(unknown)}")


@check("guidance", "untouched")
def untouched(subject: Subject) -> None:
    """Neither the state nor an estimate of the network is written to.

    A network that is captured or cached returns the same tensor again, and two views may be one tensor.
    """
    for sigma in _levels()[::6]:
        model, x = Model(subject.conditions), _state(sigma)
        copy = x.clone()
        _ask(subject.guidance, model, x, sigma)
        expect_equal(x, copy, f"the state after a call at sigma {sigma:.4g}")
        for tensor, kept in model.given:
            expect_equal(tensor.detach(), kept, f"an estimate after a call at sigma {sigma:.4g}")


@check("guidance", "gradients")
def gradients(subject: Subject) -> None:
    """No gradient is taken through the network unless `differentiates` says so, and none is left in the result.

    A run needs a fraction of the memory without them, and compiled and captured networks have none. The grad mode of
    the caller is as it was afterwards.
    """
    for enabled in (False, True):
        model, x = Model(subject.conditions), _state(1.0)
        with torch.set_grad_enabled(enabled):
            found = subject.guidance(model, x, 1.0)
            kept = torch.is_grad_enabled() == enabled
        expect(kept, f"grad mode {enabled}, as before the call", f"{not enabled}")
        expect(not (found.requires_grad or x.requires_grad), "a result and a state without gradients", "they have them")
        declared = subject.guidance.differentiates
        expect(declared or not model.differentiated, "no gradient through evaluate", "x.requires_grad inside of it")


@check("guidance", "rows")
def rows(subject: Subject) -> None:
    """A sample is guided the same alone and in a batch.

    Within 1e-9 in float64. Statistics such as the standard deviation are taken a sample: over all axes but the first.
    """
    for sigma in _levels()[::6]:
        x = _state(sigma, rows=3)
        whole = _ask(subject.guidance, Model(subject.conditions), x, sigma)
        alone = _ask(subject.guidance, Model(subject.conditions), x[2:], sigma)
        expect_close(alone, whole[2:], f"a sample alone and third in a batch, at sigma {sigma:.4g}", 1e-9)


@check("guidance", "shape")
def shape(subject: Subject) -> None:
    """The result has the shape and dtype of the state (float32, float64), is finite, and videos work as pictures do.

    Guidance that decodes latents is asked for pictures only.
    """
    model = Model(subject.conditions)
    _ask(subject.guidance, model, _state(1.0), 1.0)
    shapes = [SHAPE] if model.decoded else [SHAPE, (3, 2, 8, 8)]
    for wanted in shapes:
        for dtype in (torch.float32, torch.float64):
            for sigma in (PROCESS.sigma_min, 1.0, PROCESS.sigma_max):
                x = _state(sigma, dtype=dtype, shape=wanted)
                found = _ask(subject.guidance, Model(subject.conditions), x, sigma)
                same = found.shape == x.shape and found.dtype == dtype
                expect(same, f"{dtype} {tuple(x.shape)}", f"{found.dtype} {tuple(found.shape)}")
                expect(bool(found.isfinite().all()), f"finite numbers at sigma {sigma:.4g}", "NaN or infinities")


@check("guidance", "pure")
def pure(subject: Subject) -> None:
    """The first call of a run has the same result, bit for bit, whatever other runs asked in between.

    Guidance is a value that threads share: what it remembers is in `evaluate.memory`, and no random number is drawn.
    """
    state = torch.get_rng_state()
    first = [found for _, _, found in _calls(subject)]
    moved = not torch.equal(state, torch.get_rng_state())
    torch.set_rng_state(state)
    expect(not moved, "torch's global generator as it was", "it was advanced")
    for sigma, wanted in reversed(list(zip(_levels(), first, strict=True))):
        again = _ask(subject.guidance, Model(subject.conditions), _state(sigma), sigma)
        expect_equal(again, wanted, f"the result at sigma {sigma:.4g} a second time, in another order")


@check("guidance", "host-scalars")
def host_scalars(subject: Subject) -> None:
    """No number of a tensor is looked at: no `.item()`, no `float(tensor)`, no `if` on a tensor.

    Each of them waits for the device, once a step. Checked by a call on tensors that refuse.
    """
    for sigma in _levels()[::10]:
        try:
            _ask(subject.guidance, Model(subject.conditions), blind(_state(sigma)), sigma)
        except Looked as error:
            fail("arithmetic that looks at no number", str(error))


@check("guidance", "device")
def device(subject: Subject) -> None:
    """The result is on the device of the state.

    Checked on an accelerator where there is one, and on the meta device otherwise, where a tensor that was made
    elsewhere is found just the same. Tensors among the fields are brought to the state's device in the call.
    """
    where = other_device()
    x = _state(1.0, dtype=torch.float32).to(where)
    try:
        found = _ask(subject.guidance, Model(subject.conditions), x, 1.0)
    except (RuntimeError, NotImplementedError) as error:
        fail(f"a call on {where}", f"{type(error).__name__}: {error}")
    expect(found.device.type == where.type, f"a result on {where}", f"{found.device}")
