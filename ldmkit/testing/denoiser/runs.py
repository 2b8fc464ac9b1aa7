"""What a denoiser promises of runs: steps, threads, compilation, and other ways to call it."""

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
    """Two runs may take turns, and a context serves any number of steps.

    What `prepare` computes goes into the context that it returns. Kept on the module instead, it is overwritten by the
    next run's `prepare`, and the first run goes on with the other's conditions.
    """
    part = s.make()
    runs = [inputs(part, size_of(part), seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        wanted = [call(part, run) for run in runs]
        contexts = [part.prepare(run["signals"]) for run in runs]
        for turn in range(2):
            for number, (run, context) in enumerate(zip(runs, contexts, strict=True)):
                found = part(run["x"], run["t"], context)
                same([found], [wanted[number]], f"F of run {number} in step {turn}, taking turns with another run")


@check("denoiser", "threads")
def threads(s: DenoiserSubject) -> None:
    """Several threads may use one network at the same time.

    `forward` keeps nothing on the module, not even for the length of a call: another thread may be in the middle of
    it. State of one forward lives in local variables and in its `Frame`.
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

    _together(work)
    expect(not wrong, f"{THREADS} threads to get what each gets alone", "; ".join(wrong)[:300])


def _together(work: Any) -> None:
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
    """`forward` asks no tensor for its numbers.

    `.item()`, `float(tensor)`, `if tensor > 0` and boolean indexing make the program wait for the GPU in every step,
    and cannot be recorded in a CUDA graph. What depends on numbers is decided in `prepare`, once per run, or computed
    with `torch.where`.
    """
    part = s.make()
    given = s.given(part)
    with torch.no_grad():
        context = part.prepare(given["signals"])
        with Asked() as asked:
            part(given["x"], given["t"], context)
    expect(not asked.found, "no tensor to be asked for its numbers", f"{len(asked.found)} time(s): {asked.found[:3]}")


@check("denoiser", "compiles")
def compiles(s: DenoiserSubject) -> None:
    """The repeated blocks (`regions`), or the whole network, compile without a graph break, to the same results.

    `torch.compile` is asked for full graphs; no C++ compiler is needed for the check. Breaks come from conditions on
    tensors, prints, and Python that cannot be traced. A network without the plan "compiled" is not checked.
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

    The inherited `plan` does. A network with plans of its own lists them in `plans`, takes the ones it knows, and
    hands on the others with `super().plan(name)`.
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
    fail("a CompositionError for plan 'no-such-plan'", "it was made")
