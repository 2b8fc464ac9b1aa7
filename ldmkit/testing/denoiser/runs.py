"""Checks of a denoiser's runs: interleaving, threads, compilation, and execution plans."""

from __future__ import annotations

import sys
import threading
from typing import Any

import torch
from torch import Tensor

from ldmkit.errors import CompositionError
from ldmkit.plans.base import shadow
from ldmkit.plans.compiled import MAX_RECOMPILES
from ldmkit.testing.asked import Asked
from ldmkit.testing.batches import close, same
from ldmkit.testing.checks import NotApplicable, check, expect, fail, told
from ldmkit.testing.denoiser.subject import DenoiserSubject, call, inputs, size_of

THREADS, ROUNDS = 3, 6


@check("denoiser", "interleaved")
def interleaved(s: DenoiserSubject) -> None:
    """Two runs may be interleaved, and a context serves any number of steps.

    Return what `prepare` computes in the context. Stored on the module instead, it would be overwritten by the next
    run's `prepare`, and the first run would continue with the other's conditions.
    """
    part = s.make()
    runs = [inputs(part, size_of(part), seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        wanted = [call(part, run) for run in runs]
        contexts = [part.prepare(run["signals"]) for run in runs]
        for turn in range(2):
            for number, (run, context) in enumerate(zip(runs, contexts, strict=True)):
                found = part(run["x"], run["t"], context)
                same([found], [wanted[number]], f"F of run {number} in step {turn}, interleaved with another run")


@check("denoiser", "threads")
def threads(s: DenoiserSubject) -> None:
    """Several threads may use a network at the same time.

    `forward` must store nothing on the module, not even during a call: another thread may be executing it. Keep the
    state of a forward pass in local variables and in its `Frame`.
    """
    part = s.make()
    jobs = [inputs(part, size_of(part), seed=seed) for seed in range(THREADS)]
    with torch.no_grad():
        wanted = [call(part, job) for job in jobs]
    wrong: list[str] = []
    start = threading.Barrier(THREADS)

    def work(number: int) -> None:
        start.wait()
        try:
            for _ in range(ROUNDS):
                with torch.no_grad():
                    close([call(part, jobs[number])], [wanted[number]], f"F in thread {number}")
        except Exception as error:
            wrong.append(told(error))

    _in_threads(work)
    expect(not wrong, f"{THREADS} threads to get what each gets alone", "; ".join(wrong)[:300])


def _in_threads(work: Any) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        running = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


@check("denoiser", "no-waiting")
def no_waiting(s: DenoiserSubject) -> None:
    """`forward` never reads tensor values on the host.

    `.item()`, `float(tensor)`, `if tensor > 0` and boolean indexing synchronise with the GPU at every step, and cannot
    be captured in a CUDA graph. Decide what depends on values in `prepare`, once per run, or use `torch.where`.
    """
    part = s.make()
    given = s.given(part)
    with torch.no_grad():
        context = part.prepare(given["signals"])
        with Asked() as asked:
            part(given["x"], given["t"], context)
    expect(not asked.found, "no tensor values read on the host", f"{len(asked.found)} time(s): {asked.found[:3]}")


@check("denoiser", "compiles")
def compiles(s: DenoiserSubject) -> None:
    """The repeated blocks (`regions`), or else the whole network, compile without graph breaks, with the same results.

    They are compiled by `torch.compile` with `fullgraph=True`; the check needs no C++ compiler. Conditions on tensors,
    prints, and Python code that cannot be traced cause graph breaks. A network without the plan "compiled" is skipped.
    """
    part = s.make()
    if "compiled" not in part.plans:
        raise NotApplicable("it has no plan 'compiled'")
    regions = tuple(part.regions) or (type(part),)
    twin = shadow(part)
    blocks = [module for module in twin.modules() if type(module) in regions]
    expect(bool(blocks), f"blocks of {[cls.__name__ for cls in regions]} in the network", "there are none")
    given = s.given(part)
    torch._dynamo.reset()
    for block in blocks:
        block.compile(backend="eager", fullgraph=True, dynamic=False)
    config: Any = torch._dynamo.config
    with torch.no_grad():
        wanted = call(part, given)
        context = part.prepare(given["signals"])
        try:
            with config.patch(recompile_limit=MAX_RECOMPILES):
                found: Tensor = twin(given["x"], given["t"], context)
        except Exception as error:
            fail("a full graph of every block", _reason(error))
        finally:
            torch._dynamo.reset()
    close([found], [wanted], "F of the compiled network")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' | '.join(lines[:4])[:400]}"


@check("denoiser", "plans")
def plans(s: DenoiserSubject) -> None:
    """`plan("eager")` is the network itself, `plan("auto")` gives the same F, and unknown plans are refused.

    The inherited `plan` does this. A network with its own plans lists them in `plans`, handles these, and passes other
    names to `super().plan(name)`.
    """
    part = s.make()
    expect({"eager", "auto"} <= set(part.plans), "'eager' and 'auto' among the plans", f"{part.plans}")
    expect(part.plan("eager") is part, "the network itself as plan 'eager'", "something else")
    given = s.given(part)
    with torch.no_grad():
        context = part.prepare(given["signals"])
        automatic = part.plan("auto")
        close([automatic(given["x"], given["t"], context, None)], [call(part, given)], "F of plan 'auto'")
    try:
        part.plan("no-such-plan")
    except CompositionError:
        return
    fail("a CompositionError for plan 'no-such-plan'", "it was accepted")
