"""Checks of guidance: how a call behaves, independently of the rule."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ldmkit.contracts.guidance import Perturbed
from ldmkit.testing.blind import ValueRead, blind, other_device
from ldmkit.testing.checks import NotApplicable, check, expect, fail
from ldmkit.testing.guidance.model import PROCESS, SHAPE, Model, Subject, ask, levels, state
from ldmkit.testing.rng import seeded, without_draws
from ldmkit.testing.tensors import expect_close, expect_equal


@check("guidance", "views")
def views(subject: Subject) -> None:
    """`views(names)` is the largest number of different views that one call evaluates.

    Memory estimates, and the printed cost of a run, are based on it. It covers the whole range of noise levels. Without
    conditions it is 1.
    """
    declared, most = subject.guidance.views(subject.conditions), 0
    for model, _, _ in _calls(subject):
        most = max([most, *(len(set(call)) for call in model.calls)])
    expect(most == declared, f"{declared} views at most, as declared for {subject.conditions}", f"{most}")
    none, apart = subject.guidance.views(()), subject.guidance.perturbed(())
    expect(none == 1 + apart, f"{1 + apart} views where there are no conditions, {apart} of them disturbed", f"{none}")


@check("guidance", "weights")
def weights(subject: Subject) -> None:
    """`weights(names, sigma)` is None, or the factors of the evaluated views, which add up to 1.

    A run uses them to warn of conditions, negatives and intervals that have no effect. None: the factors are not known.
    """
    for sigma in levels():
        told = subject.guidance.weights(subject.conditions, sigma)
        if told is None:
            raise NotApplicable("`weights` is None: the factors are not known")
        model = Model(subject.conditions)
        ask(subject.guidance, model, state(sigma), sigma)
        asked = {view for call in model.calls for view in call}
        expect(set(told) == asked, f"weights of the views {sorted(map(str, asked))}", f"{told}")
        expect(all(told.values()), "no view with a factor of 0", f"{told}")
        expect(math.isclose(sum(told.values()), 1.0, abs_tol=1e-9), "factors that add up to 1", f"{told}")


def _calls(subject: Subject) -> Iterator[tuple[Model, Tensor, Tensor]]:
    """A model, a state and the result for every noise level."""
    for sigma in levels():
        model, x = Model(subject.conditions), state(sigma)
        yield model, x, ask(subject.guidance, model, x, sigma)


@check("guidance", "one-batch")
def one_batch(subject: Subject) -> None:
    """All views are evaluated in one call of `evaluate`, and each consists of names that the model has.

    Several calls are several batches of the network, which is slower on a GPU. A view is the frozenset of those names
    in `evaluate.names` that are dropped.
    """
    for model, _, _ in _calls(subject):
        expect(len(model.calls) == 1, "one call of evaluate", f"{len(model.calls)}")
        for asked in model.calls[0]:
            view = asked.drop if isinstance(asked, Perturbed) else asked
            expect(isinstance(view, frozenset), "views that are frozensets", f"{view!r}")
            unknown = view - set(subject.conditions)
            expect(not unknown, f"names in {subject.conditions}", f"{sorted(unknown)}")


@check("guidance", "untouched")
def untouched(subject: Subject) -> None:
    """Neither the state nor an estimate of the network is written to.

    A captured or cached network returns the same tensor again, and two views may be the same tensor.
    """
    for sigma in levels()[::6]:
        model, x = Model(subject.conditions), state(sigma)
        copy = x.clone()
        ask(subject.guidance, model, x, sigma)
        expect_equal(x, copy, f"the state after a call at sigma {sigma:.4g}")
        for tensor, kept in model.given:
            expect_equal(tensor.detach(), kept, f"an estimate after a call at sigma {sigma:.4g}")


@check("guidance", "gradients")
def gradients(subject: Subject) -> None:
    """It differentiates through the network only if `differentiates` says so, and its result requires no gradient.

    Without gradients, a run needs a fraction of the memory; compiled and captured networks have none. The caller's grad
    mode must be restored.
    """
    for enabled in (False, True):
        model, x = Model(subject.conditions), state(1.0)
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

    Within 1e-9 in float64. Compute statistics such as the standard deviation per sample: over all axes but the first.
    """
    for sigma in levels()[::6]:
        x = state(sigma, rows=3)
        whole = ask(subject.guidance, Model(subject.conditions), x, sigma)
        alone = ask(subject.guidance, Model(subject.conditions), x[2:], sigma)
        expect_close(alone, whole[2:], f"a sample alone and third in a batch, at sigma {sigma:.4g}", 1e-9)


@check("guidance", "shape")
def shape(subject: Subject) -> None:
    """The result is finite and has the shape and dtype of the state (float32, float64), whatever its axes.

    Vectors (B,C) and videos (B,C,t,h,w) work like pictures: per-sample statistics are over all axes but the first.
    Guidance that decodes latents is checked with pictures only.
    """
    model = Model(subject.conditions)
    ask(subject.guidance, model, state(1.0), 1.0)
    shapes = [SHAPE] if model.decoded else [SHAPE, (3, 2, 8, 8), (12,)]
    for wanted in shapes:
        for dtype in (torch.float32, torch.float64):
            for sigma in (PROCESS.sigma_min, 1.0, PROCESS.sigma_max):
                x = state(sigma, dtype=dtype, shape=wanted)
                found = ask(subject.guidance, Model(subject.conditions), x, sigma)
                same = found.shape == x.shape and found.dtype == dtype
                expect(same, f"{dtype} {tuple(x.shape)}", f"{found.dtype} {tuple(found.shape)}")
                expect(bool(found.isfinite().all()), f"finite values at sigma {sigma:.4g}", "NaN or infinities")


@check("guidance", "pure", cause=True)
def pure(subject: Subject) -> None:
    """The first call of a run gives the same result, bit for bit, whatever other runs did in between.

    Guidance is a value that threads share: keep state in `evaluate.memory`, and draw no random numbers.
    """
    first = without_draws(lambda: [found for _, _, found in _calls(subject)])
    for sigma, wanted in reversed(list(zip(levels(), first, strict=True))):
        with seeded(2):
            again = ask(subject.guidance, Model(subject.conditions), state(sigma), sigma)
        expect_equal(again, wanted, f"the result at sigma {sigma:.4g} a second time, in another order")


@check("guidance", "host-scalars")
def host_scalars(subject: Subject) -> None:
    """Tensor values are never read on the host: no `.item()`, no `float(tensor)`, no `if` on a tensor.

    Each of these synchronises with the device at every step. Checked with tensors whose values cannot be read.
    """
    for sigma in levels()[::10]:
        try:
            ask(subject.guidance, Model(subject.conditions), blind(state(sigma)), sigma)
        except ValueRead as error:
            fail("arithmetic that never reads tensor values", str(error))


@check("guidance", "device")
def device(subject: Subject) -> None:
    """The result is on the device of the state.

    Checked on an accelerator if there is one, else on the meta device, which also detects tensors created on another
    device. Move tensors among the fields to the state's device in the call.
    """
    where = other_device()
    x = state(1.0, dtype=torch.float32).to(where)
    try:
        found = ask(subject.guidance, Model(subject.conditions), x, 1.0)
    except (RuntimeError, NotImplementedError) as error:
        fail(f"a call on {where}", f"{type(error).__name__}: {error}")
    expect(found.device.type == where.type, f"a result on {where}", f"{found.device}")
