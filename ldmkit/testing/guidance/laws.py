"""Checks of guidance: laws of its result at particular scales, and for estimates that agree."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ldmkit.contracts.guidance import Guidance, View
from ldmkit.errors import SpecError
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.guidance.model import NOTHING, Model, Subject, ask, levels, state
from ldmkit.testing.tensors import expect_close, expect_equal


def _plain(subject: Subject, scale: float) -> Guidance:
    found = subject.guidance.plain(scale)
    if found is None:
        raise NotApplicable("`plain` is None: it has no form with a single scale")
    return found


def _expect_law(subject: Subject, scale: float, names: tuple[str, ...], what: str) -> None:
    """The plain form at a scale is unconditional + scale * (conditional - unconditional)."""
    guidance = _plain(subject, scale)
    for sigma in (0.1, 1.0, 8.0):
        model, x = Model(names), state(sigma)
        conditional, without = (model.estimate(x, sigma, view) for view in (NOTHING, frozenset(names)))
        wanted = without + scale * (conditional - without)
        expect_close(ask(guidance, model, x, sigma), wanted, f"{what}, at sigma {sigma}", 1e-9)


@check("guidance", "conditional")
def conditional(subject: Subject) -> None:
    """At scale 1 the result is the conditional estimate.

    `plain(scale)` is the guidance with one scale for all of its conditions and without options. By default it is a copy
    with that value in the field `scale`; override it if the field has another name, or if 1 means something else.
    """
    _expect_law(subject, 1.0, subject.conditions, "the result at scale 1, and the conditional estimate")


@check("guidance", "unconditional")
def unconditional(subject: Subject) -> None:
    """At scale 0 the result is the unconditional estimate.

    This is the view that drops every name in `evaluate.names` (or all conditions that the guidance is for).
    """
    _expect_law(subject, 0.0, subject.conditions, "the result at scale 0, and the unconditional estimate")


@check("guidance", "single")
def single(subject: Subject) -> None:
    """With one condition it is classifier-free guidance: unconditional + scale * (conditional - unconditional).

    Scales then mean the same in every rule, and the rule can be changed without changing them. Note that some papers
    write w = scale - 1.
    """
    if len(subject.names) > 1:
        raise NotApplicable("this example is for several conditions")
    for scale in (0.5, 3.0, 7.5):
        _expect_law(
            subject, scale, subject.conditions[:1], f"the result at scale {scale:g}, and classifier-free guidance"
        )


class _Alike(Model):
    """A model on which conditions have no effect."""

    def estimate(self, x: Tensor, sigma: float, view: View) -> Tensor:
        return super().estimate(x, sigma, NOTHING)

    def disturbed(self, x0: Tensor, places: int) -> Tensor:
        return x0


def _later() -> list[float]:
    """Noise levels of a run after its first steps, in which a rule may behave differently."""
    return levels()[::-1][3:]


def _neutral(subject: Subject) -> Guidance:
    found = subject.guidance.neutral()
    if found is None:
        raise NotApplicable("`neutral` is None: it has no neutral scale")
    return found


@check("guidance", "neutral")
def neutral(subject: Subject) -> None:
    """At the neutral scale the result is the conditional estimate, whatever the options.

    `neutral()` is the guidance at that scale with all of its options; by default `plain(1)`. A rule that rescales,
    projects or keeps state must still return the conditional estimate, within 1e-9.
    """
    guidance = _neutral(subject)
    model = Model(subject.conditions)
    for sigma in levels()[::-1]:
        x = state(sigma)
        wanted = model.estimate(x, sigma, NOTHING)
        expect_close(ask(guidance, model, x, sigma), wanted, f"the neutral result at sigma {sigma:.4g}", 1e-9)


@check("guidance", "agreement")
def agreement(subject: Subject) -> None:
    """If all estimates are equal, including perturbed ones, the result equals them.

    There is then no difference to amplify. Within 1e-7, from the fourth step of a run on. A rule without a neutral
    scale (`neutral`) adds something other than differences of estimates, and is skipped.
    """
    _neutral(subject)
    model = _Alike(subject.conditions)
    for sigma in _later():
        x = state(sigma)
        wanted = model.estimate(x, sigma, NOTHING)
        expect_close(ask(subject.guidance, model, x, sigma), wanted, f"the result at sigma {sigma:.4g}", 1e-7)


@check("guidance", "interval")
def interval(subject: Subject) -> None:
    """Outside its `interval` (low, high], a field that every guidance should have, it returns the conditional estimate.

    This must then be the only view that is evaluated.
    """
    _neutral(subject)
    try:
        off = type(subject.guidance).of({**dict(subject.guidance), "interval": (1e5, 2e5)})
    except SpecError:
        raise NotApplicable("it has no field `interval` of noise levels") from None
    for sigma in levels():
        model, x = Model(subject.conditions), state(sigma)
        wanted = model.estimate(x, sigma, NOTHING)
        expect_close(ask(off, model, x, sigma), wanted, f"the result outside the interval, at sigma {sigma:.4g}", 1e-9)
        asked = {view for call in model.calls for view in call}
        expect(asked == {NOTHING}, "only the conditional view outside the interval", f"{len(asked)} views")


def _whole(guidance: Guidance, model: Model) -> Iterator[Tensor]:
    for sigma in levels()[::-1]:
        yield ask(guidance, model, state(sigma), sigma)


@check("guidance", "memory")
def memory(subject: Subject) -> None:
    """A run can be repeated, and interleaved with another, bit for bit: state is kept in `evaluate.memory`.

    Guidance is a value that threads share. Momentum and the like belong to a run: its memory is empty at the start, and
    separate from that of other runs.
    """
    guidance, names = subject.guidance, subject.conditions
    first = list(_whole(guidance, Model(names)))
    second = list(_whole(guidance, Model(names)))
    one, other = _whole(guidance, Model(names)), _whole(guidance, _Alike(names))
    beside = [pair[0] for pair in zip(one, other, strict=True)]
    for number, (wanted, again, aside) in enumerate(zip(first, second, beside, strict=True), start=1):
        expect_equal(again, wanted, f"step {number} of the same run a second time")
        expect_equal(aside, wanted, f"step {number} of the run, interleaved with another")
