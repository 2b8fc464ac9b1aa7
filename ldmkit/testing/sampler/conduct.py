"""Checks of samplers: how a run behaves, independently of the solver."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ldmkit.contracts.denoised import Denoised, Need
from ldmkit.contracts.step import Denoise, Step
from ldmkit.run.noise import Noise
from ldmkit.testing.blind import ValueRead, blind, other_device
from ldmkit.testing.checks import check, expect, fail
from ldmkit.testing.reference import Whole
from ldmkit.testing.rng import without_draws
from ldmkit.testing.sampler.convergence import is_drawn
from ldmkit.testing.sampler.runs import (
    SHAPE,
    Subject,
    final,
    humps,
    levels,
    ordinary,
    start,
    transitions,
    trial,
)
from ldmkit.testing.tensors import expect_close, expect_equal

COUNTS = range(1, 25)


@check("sampler", "steps")
def steps(subject: Subject) -> None:
    """N transitions give N steps, for every N from 1 to 24, to sigma 0 and to a sigma above it.

    Step i of N has index i, count N, the two noise levels of its transition, and x and x0 of the state's shape. Callers
    use them for progress, previews and cancelling. A multistep solver starts and ends with fewer points; it must never
    add, drop or merge a transition.
    """
    for zero in (True, False):
        for count in COUNTS:
            sigmas = levels(count, zero)
            found = ordinary(subject.sampler, count, zero).steps
            ends = f"{count} transitions to sigma {sigmas[-1]:g}"
            expect(len(found) == count, f"{count} steps for {ends}", f"{len(found)}")
            wrong = [s for i, s in enumerate(found) if (s.index, s.count) != (i, count)]
            expect(not wrong, f"index and count of every step of {ends}", f"{[(s.index, s.count) for s in wrong][:3]}")
            pairs = [(s.sigma, s.sigma_next) for s in found]
            expect(
                pairs == transitions(sigmas), f"the grid's own noise levels in the steps of {ends}", f"{pairs}"[:160]
            )
            shapes = {tuple(t.shape) for s in found for t in (s.x, s.x0)}
            expect(shapes == {(2, *SHAPE)}, f"x and x0 of shape {(2, *SHAPE)} for {ends}", f"{shapes}")
            bad = [s.index for s in found if not (s.x.isfinite().all() and s.x0.isfinite().all())]
            expect(not bad, f"finite values in {ends}", f"none from step {bad[:1]} on")


@check("sampler", "evaluations")
def evaluations(subject: Subject) -> str:
    """`evaluations(N)` is the number of network calls in N transitions to sigma 0, for every N from 1 to 24.

    It is printed before a run, and used to compare samplers. Override it if a step does not call `denoise` exactly
    once.
    """
    for count in COUNTS:
        declared, made = subject.sampler.evaluations(count), len(ordinary(subject.sampler, count).calls)
        expect(made == declared, f"{declared} evaluations in {count} transitions, as declared", f"{made}")
    return f"{subject.sampler.evaluations(20)} in 20 steps"


@check("sampler", "levels")
def asked_levels(subject: Subject) -> None:
    """`denoise` is called with Python floats that are finite and positive.

    At sigma 0 there is nothing to predict, and a tensor would have to be read back from the device at every step.
    """
    for zero in (True, False):
        calls = ordinary(subject.sampler, 9, zero).calls
        wrong = [s for s in calls if not (isinstance(s, float) and math.isfinite(s) and s > 0)]
        expect(not wrong, "denoise(x, sigma) with sigma a float above 0", f"{wrong[:3]!r}")


@check("sampler", "untouched")
def untouched(subject: Subject) -> None:
    """Tensors that were received or returned are not modified: the start, estimates, noise, earlier steps.

    Others keep them: previews hold x0, several runs start from one state, a cached network returns the same tensor
    again. In-place arithmetic is fine on a tensor that the step itself created and has not yet returned.
    """
    for count in (1, 2, 9):
        for tensor, copy, what in ordinary(subject.sampler, count).kept:
            expect(torch.equal(tensor, copy), f"{what} unchanged ({count} steps)", "it was written to afterwards")


@check("sampler", "noise-once")
def noise_once(subject: Subject) -> None:
    """Noise indices are integers >= 0, and each is drawn at most once in a run.

    noise(i) always returns the same values: drawing an index again adds the same noise a second time, which has twice
    the variance of two independent draws. A step that needs two draws uses 2 i and 2 i + 1.
    """
    for count in (1, 2, 12):
        draws = ordinary(subject.sampler, count).draws
        wrong = [i for i in draws if isinstance(i, bool) or not isinstance(i, int) or i < 0]
        expect(not wrong, "integers >= 0", f"noise({wrong[:1]!r})")
        again = sorted({i for i in draws if draws.count(i) > 1})
        expect(not again, f"each index at most once in {count} steps", f"noise({again[:1]}) was drawn again")


@check("sampler", "noise-declared")
def noise_declared(subject: Subject) -> None:
    """A sampler that declares an order draws no noise, and one that draws none declares its order.

    `order` is the order of convergence to the solution of the ODE; a run that draws noise does not converge to it. If
    a field decides (eta = 0), make `order` a property. Samplers for distilled networks (`estimate`) need none.
    """
    order, draws = subject.sampler.order, is_drawn(subject.sampler)
    if order is not None:
        expect(not draws, f"no noise, as order {order} is declared", "noise was drawn")
    elif subject.sampler.estimate == "mean":
        expect(draws, "noise to be drawn, as `order` is None", "none was drawn in 12 steps")


class _RecordedNeeds(Whole):
    """Records what a sampler asks for in addition to x0."""

    def __init__(self, denoise: Denoise) -> None:
        super().__init__(denoise)
        self.needs: set[Need] = set()

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        self.needs.update(needs)
        return super().estimate(x, sigma, *needs)


@check("sampler", "needs")
def needs(subject: Subject) -> None:
    """`needs` names exactly what the sampler asks of `denoise` in addition to x0.

            for a plain function says what is missing. If a field decides, make `needs` a property.
    The number of rows of a run is computed from it in advance. Ask through `ldmkit.estimates(denoise, ...)`, whose
        error for a plain function says what is missing. If a field decides, make `needs` a property.
        for a plain function says what is missing. If a field decides, make `needs` a property.
    """
    asked, sigmas = _RecordedNeeds(humps), levels(12)
    for _ in subject.sampler.steps(asked, start((1,), sigmas[0]), sigmas, Noise((1,), SHAPE)):
        pass
    declared = set(subject.sampler.needs)
    expect(asked.needs == declared, f"{sorted(declared) or 'nothing'} asked for, as declared", f"{sorted(asked.needs)}")


@check("sampler", "batch")
def batch(subject: Subject) -> None:
    """A sample depends only on its own seed, not on the others in its batch or on their order.

    Third in a batch, alone, and in another order: equal within 1e-9 in float64. Do not compute statistics over the
    batch axis.
    """
    sigmas = levels(7)
    whole = final(subject.sampler, (3, 1, 7), sigmas)
    expect_close(final(subject.sampler, (7,), sigmas), whole[2:], "a sample alone and third in a batch", 1e-9)
    turned = final(subject.sampler, (7, 1, 3), sigmas).flip(0)
    expect_close(turned, whole, "a batch in another order", 1e-9)


@check("sampler", "interleaved")
def interleaved(subject: Subject) -> None:
    """Two runs of one sampler can be interleaved without affecting each other, bit for bit.

    A sampler is a value that threads share. Keep the state of a run in its generator's local variables, never on the
    object, the class or the module.
    """
    long, short = levels(9), levels(6, zero=False)
    wanted = final(subject.sampler, (1,), long), final(subject.sampler, (2,), short)
    runs = [_run(subject, 1, long), _run(subject, 2, short)]
    found: list[Tensor | None] = [None, None]
    for _ in long:
        for i, run in enumerate(runs):
            step = next(run, None)
            if step is not None:
                found[i] = step.x
    for got, want in zip(found, wanted, strict=True):
        expect_equal(want if got is None else got, want, "a run interleaved with another")


def _run(subject: Subject, seed: int, sigmas: list[float]) -> Iterator[Step]:
    return iter(subject.sampler.steps(humps, start((seed,), sigmas[0]), sigmas, Noise((seed,), SHAPE)))


@check("sampler", "pure", cause=True)
def pure(subject: Subject) -> None:
    """Repeated runs are bit-equal, and the global random generators are neither read nor advanced.

    All noise comes from `noise(i)`, a pure function of the sample's seed. With torch.randn and the like, a sample would
    depend on earlier draws.
    """
    sigmas = levels(7)
    first, second = (without_draws(lambda: final(subject.sampler, (5,), sigmas), seed) for seed in (1, 2))
    expect_equal(second, first, "the same run a second time, with another global seed")


@check("sampler", "rank")
def rank(subject: Subject) -> None:
    """The shape of samples does not matter: pictures (B,C,h,w) and videos (B,C,t,h,w) get the same values.

    Equal within 1e-9 in float64 to a run of flat samples. Work elementwise, or over all axes but the first; never index
    an axis from the end or unpack a shape.
    """
    sigmas = levels(6)
    flat = Noise((4, 5), (24,))

    def run(*shape: int) -> Tensor:
        x = (flat(0, "start").double() * sigmas[0]).view(2, *shape)
        return list(subject.sampler.steps(humps, x, sigmas, lambda i: flat(i).view(2, *shape)))[-1].x

    wanted = run(24)
    for shape in ((3, 2, 4), (3, 2, 2, 2)):
        expect_close(run(*shape).flatten(1), wanted, f"samples of shape {shape} and flat ones", 1e-9)


@check("sampler", "dtype")
def dtype(subject: Subject) -> None:
    """The state keeps its dtype (float32, bfloat16, float64), in calls of `denoise` and in every step.

    noise(i) is always float32: `x + noise` promotes a bfloat16 state to float32, `x.add_(noise)` on a new tensor does
    not. Coefficients are Python floats, which do not promote.
    """
    sigmas = levels(6)
    for wanted in (torch.float32, torch.bfloat16, torch.float64):
        x = start((1, 2), sigmas[0], dtype=wanted)
        seen = trial(subject.sampler, x, sigmas, Noise((1, 2), SHAPE))
        found = seen.dtypes | {t.dtype for s in seen.steps for t in (s.x, s.x0)}
        expect(found == {wanted}, f"{wanted} throughout", f"{sorted(map(str, found))}")
        expect(bool(seen.steps[-1].x.isfinite().all()), f"finite values in {wanted}", "NaN or infinities")


@check("sampler", "grad-mode")
def grad_mode(subject: Subject) -> None:
    """Between two steps, the caller's own grad mode is in force.

    `with torch.no_grad():` around a `yield` stays active while the caller's code runs, and changes the caller's mode
    when the run is abandoned. The pipeline itself disables gradients around the network.
    """
    sigmas = levels(5)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            run = subject.sampler.steps(humps, start((1,), sigmas[0]), sigmas, Noise((1,), SHAPE))
            for step in run:
                now = torch.is_grad_enabled() == enabled and not torch.is_inference_mode_enabled()
                if not now:
                    del run
                expect(now, f"grad mode {enabled} after step {step.index}, as the caller has it", f"{not enabled}")


@check("sampler", "lazy")
def lazy(subject: Subject) -> None:
    """Steps are computed lazily: the network is not called for steps that have not been requested yet.

    `steps` is a generator. Previews, cancelling and early stops happen between its steps, so a list of all steps would
    come too late. The first of 24 steps may use at most half of the run's evaluations.
    """
    sigmas = levels(24)
    calls: list[float] = []

    def counted(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return humps(x, sigma)

    run = subject.sampler.steps(Whole(counted), start((1,), sigmas[0]), sigmas, Noise((1,), SHAPE))
    next(iter(run))
    first = len(calls)
    whole = subject.sampler.evaluations(24)
    expect(first <= whole / 2, f"at most half of {whole} evaluations before the first step", f"{first} calls before it")


@check("sampler", "closed")
def closed(subject: Subject) -> None:
    """A run that is abandoned between two steps ends there: nothing is raised, and the network is not called again.

    Python closes a generator by raising GeneratorExit at its `yield`. `except BaseException:` or a bare `except:`
    around a `yield` swallows it; the run then continues, or ends with "generator ignored GeneratorExit".
    """
    sigmas = levels(6)
    for done in (1, 3):
        calls: list[float] = []

        def counted(x: Tensor, sigma: float, calls: list[float] = calls) -> Tensor:
            calls.append(sigma)
            return humps(x, sigma)

        run = iter(subject.sampler.steps(Whole(counted), start((1,), sigmas[0]), sigmas, Noise((1,), SHAPE)))
        for _ in range(done):
            next(run)
        before = len(calls)
        try:
            getattr(run, "close", lambda: None)()
        except Exception as error:
            fail(f"a run that ends when it is closed after {done} steps", f"{type(error).__name__}: {error}")
        expect(len(calls) == before, f"no call after a run was closed at step {done}", f"{len(calls) - before} calls")


@check("sampler", "host-scalars")
def host_scalars(subject: Subject) -> None:
    """Tensor values are never read on the host: no `.item()`, no `float(tensor)`, no `if` on a tensor.

    Each of these synchronises with the device at every step. Checked with tensors whose values cannot be read. Compute
    coefficients from the noise levels, which are Python floats; use torch.where and clamp for what depends on tensors.
    """
    sigmas = levels(5)
    noise = Noise((1, 2), SHAPE)
    try:
        for _ in subject.sampler.steps(humps, blind(start((1, 2), sigmas[0])), sigmas, lambda i: blind(noise(i))):
            pass
    except ValueRead as error:
        fail("arithmetic that never reads tensor values", str(error))


@check("sampler", "device")
def device(subject: Subject) -> None:
    """A run stays on the device of its state.

    Checked on an accelerator if there is one, else on the meta device, which also detects tensors created on another
    device. Coefficients that are Python floats have no device.
    """
    where, sigmas = other_device(), levels(5)
    noise = Noise((1, 2), SHAPE, where)
    x = start((1, 2), sigmas[0], dtype=torch.float32).to(where)
    try:
        found = {t.device.type for s in subject.sampler.steps(humps, x, sigmas, noise) for t in (s.x, s.x0)}
    except (RuntimeError, NotImplementedError) as error:
        fail(f"a run on {where}", f"{type(error).__name__}: {error}")
    expect(found == {where.type}, f"x and x0 on {where}", f"{sorted(found)}")
