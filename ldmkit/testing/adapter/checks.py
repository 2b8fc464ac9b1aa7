"""What an adapter promises: to act through ports, on conditions of its own, and to leave no trace.

It is checked on a denoiser: the one that its example names, or the kit's own, `ldmkit.testing.TinyDenoiser`, which is
as small as one with a port of every family can be. A new adapter must be the identity; for the other checks the kit
sets all its weights to something else. Checks named `meta` and after are those that all modules share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.example import Example
from ldmkit.contracts.ports import attached
from ldmkit.contracts.signals import Signal, Slot, select_rows, zeros_like
from ldmkit.errors import LdmkitError, suggest
from ldmkit.testing.adapter import caching as caching
from ldmkit.testing.adapter import fusing as fusing
from ldmkit.testing.adapter.subject import NAME, SIGMAS, AdapterSubject, extended, plain, prepared
from ldmkit.testing.asked import Asked
from ldmkit.testing.batches import close, differ, expect_state, same, snapshot
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail, told
from ldmkit.testing.modules import ROWS, ran, share


def subject(cls: type[Any], example: Example) -> AdapterSubject:
    """What the checks take: a class and one of its examples."""
    return AdapterSubject(cls, example.config, example.trained, example.denoiser, example.plane_factor)


def check_adapter(
    cls: type[Adapter],
    config: Mapping[str, Any] | None = None,
    *,
    denoiser: Mapping[str, Any] | None = None,
    plane_factor: int = 1,
) -> Report:
    """All checks of an adapter.

    Args:
        config: what it is built from; None: its first example, with that one's denoiser.
        denoiser: that it extends, `{"type": ..., "config": ...}`, by name or class; None: the kit's own,
            `TinyDenoiser`.
        plane_factor: rows and columns of a slot's plane for each of the latents'.
    """
    example = Example(config or {}, denoiser=denoiser, plane_factor=plane_factor)
    return check_class("adapter", cls, None if config is None else example)


@check("adapter", "host")
def host(s: AdapterSubject) -> None:
    """The denoiser that its example names is installed, and takes its config.

    Adapters are checked on a denoiser: the kit's own, `ldmkit.testing.TinyDenoiser`, unless `Example.denoiser` says
    `{"type": ..., "config": ...}`. Nothing else is checked without one.
    """
    try:
        s.bare_host()
    except LdmkitError as error:
        fail(f"to build the denoiser {s.denoiser!r:.200}", str(error))


@check("adapter", "slots")
def slots(s: AdapterSubject) -> None:
    """`slots` maps names to `ldmkit.Slot`, and `drops` answers yes or no for each.

    Under `<name>.<slot>` they are slots of the pipeline, filled by conditioners as the denoiser's are.
    """
    part = s.make()
    expect(isinstance(part.slots, Mapping), "slots: name -> Slot", f"{part.slots!r:.80}")
    for name, slot in part.slots.items():
        expect(isinstance(name, str) and isinstance(slot, Slot), "slots: name -> Slot", f"{name!r}: {slot!r}")
        expect("." not in name, "names of slots without a dot", f"{name!r}")
        expect(isinstance(part.drops(name), bool), f"drops({name!r}) to be True or False", f"{part.drops(name)!r}")


@check("adapter", "taps")
def taps(s: AdapterSubject) -> None:
    """`taps(name)` names ports that the denoiser has, and gives equal taps at every call, for tuned copies too.

    Several pipelines may share the modules, and attach an adapter once: what is attached already is found by
    comparing. So a tap is a small frozen dataclass that holds its adapter's name; what differs from run to run, weights
    and options too, it finds in `frame.context.adapters[name]`.
    """
    part = s.make()
    host = s.host(part)
    found = dict(part.taps(NAME))
    expect(bool(found or part.conditioner_taps(NAME)), "at least one tap", "none")
    for port, tap in found.items():
        known = suggest(port, host.ports)
        expect(port in host.ports, f"a port of {type(host).__name__} ({known})", f"{port!r}")
        expect(callable(tap), f"a callable tap at {port!r}", type(tap).__name__)
    expect(dict(part.taps(NAME)) == found, "equal taps from a second call", "others")
    expect(dict(part.tuned().taps(NAME)) == found, "equal taps from a tuned copy", "others")
    expect(dict(part.taps("other")) != found, "other taps for another name", "the same")


@check("adapter", "identity")
def identity(s: AdapterSubject) -> None:
    """A new adapter changes nothing: F with it attached is F without it, bit for bit.

    Training starts from what the denoiser can do already. End every branch in a layer of zeros, and add what comes out
    of it; multiplying, or replacing a value by one that is computed anew, rounds differently.
    """
    part = s.build().eval()
    host = s.host(part)
    given = s.drawn(part, host)
    base = plain(host, given)
    with torch.no_grad():
        same([extended(host, {NAME: part}, given)], [base], "F with a new adapter")


@check("adapter", "acts")
def acts(s: AdapterSubject) -> None:
    """With other weights than those of a new one, it changes F.

    Weights that are not zero any more must show; otherwise nothing that is learned has an effect.
    """
    part = s.make()
    _not_a_cache(part)
    host = s.host(part)
    given = s.drawn(part, host)
    expect(differ(ran(s, part, given), [plain(host, given)]), "another F with the adapter", "the same F")


@check("adapter", "slots-matter")
def slots_matter(s: AdapterSubject) -> None:
    """Every slot of the adapter changes F.

    Signals are read in `prepare`, from `context.signals["<name>.<slot>"]`.
    """
    part = s.make()
    if not part.slots:
        raise NotApplicable("it takes no conditions")
    given, others = s.given(part), s.drawn(part, s.host(part), seed=1)["signals"]
    base = ran(s, part, given)
    for slot in part.slots:
        name = f"{NAME}.{slot}"
        changed = ran(s, part, {**given, "signals": {**given["signals"], name: others[name]}})
        expect(differ(changed, base), f"another F where {name!r} differs", "the same F")


@check("adapter", "slots-absent")
def slots_absent(s: AdapterSubject) -> None:
    """Its slots may be empty: a run without its conditions works.

    `prepare` then returns None, or something that makes the taps return what they get.
    """
    part = s.make()
    if not part.slots:
        raise NotApplicable("it takes no conditions")
    given = s.given(part)
    signals = {name: signal for name, signal in given["signals"].items() if not name.startswith(f"{NAME}.")}
    try:
        (out,) = ran(s, part, {**given, "signals": signals})
    except Exception as error:
        fail("F without the adapter's conditions", told(error))
    expect(bool(out.isfinite().all()), "a finite F without the adapter's conditions", "NaN or infinity")


@check("adapter", "rows-absent")
def rows_absent(s: AdapterSubject) -> None:
    """In rows without its conditions it does what it does without them; other rows are not touched by that.

    A batch mixes samples that have the condition and samples that have not, or whose condition guidance drops:
    `context.present["<name>.<slot>"]` (B,) is False there, and the signal holds a null. A sample is then the same alone
    and in a batch: multiply what is added by `present`.
    """
    part = s.make()
    if not part.slots:
        raise NotApplicable("it takes no conditions")
    host = s.host(part)
    given = s.drawn(part, host)
    keep = torch.arange(ROWS) > 0
    signals: dict[str, Signal] = {}
    for name, signal in given["signals"].items():
        own = name.startswith(f"{NAME}.")
        signals[name] = select_rows(keep, signal, zeros_like(signal)) if own else signal
    without = {name: signal for name, signal in signals.items() if not name.startswith(f"{NAME}.")}
    with torch.no_grad():
        mixed = extended(host, {NAME: part}, {**given, "signals": signals}, absent=[0])
        whole = extended(host, {NAME: part}, given)
        none = extended(host, {NAME: part}, {**given, "signals": without})
    close([mixed[:1]], [none[:1]], "F of the row without the adapter's conditions")
    close([mixed[1:]], [whole[1:]], "F of the other rows")


@check("adapter", "no-entry")
def no_entry(s: AdapterSubject) -> None:
    """Its taps do nothing in a run that knows nothing of it.

    Pipelines with and without the adapter may share a denoiser, to which it stays attached. Where
    `frame.context.adapters` has no entry of its name, a tap returns what it gets, bit for bit.
    """
    part = s.make()
    host = s.host(part)
    given = s.drawn(part, host)
    base = plain(host, given)
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        same([plain(host, given)], [base], "F of a run without the adapter, with its taps attached")


@check("adapter", "detach")
def detach(s: AdapterSubject) -> None:
    """Detached, it has left no trace: F bit for bit as before, the same state-dict keys, ports without taps.

    Everything goes through ports: no layer of the denoiser is replaced, and nothing is kept on its modules.
    """
    part = s.make()
    host = s.host(part)
    before = snapshot(host)
    given = s.drawn(part, host)
    base = plain(host, given)
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        host(given["x"], given["t"], prepared(host, {NAME: part}, given), SIGMAS[1])
        expect_state(host.state_dict(), before, "the denoiser with the adapter attached")
    expect_state(host.state_dict(), before, "the denoiser after detaching")
    left = [name for name, port in host.ports.items() if port.taps]
    expect(not left, "ports without taps after detaching", f"taps at {left[:4]}")
    same([plain(host, given)], [base], "F after detaching")


@check("adapter", "frozen-denoiser")
def frozen_denoiser(s: AdapterSubject) -> None:
    """Training it leaves a frozen denoiser frozen: no gradient is asked for there, and no number changes.

    Gradients pass through the denoiser to the adapter. Which weights are trained is for training to decide.
    """
    part = s.make().train()
    host = s.host(part)
    before = snapshot(host)
    out = extended(host, {NAME: part}, s.drawn(part, host))
    if out.requires_grad:
        torch.autograd.backward(out.square().mean())
    asked = [name for name, p in host.named_parameters() if p.requires_grad or p.grad is not None]
    expect(not asked, "a denoiser without gradients", f"{len(asked)} parameter(s) have or want one: {asked[:4]}")
    expect_state(host.state_dict(), before, "the denoiser after a training step")


@check("adapter", "two-at-once")
def two_at_once(s: AdapterSubject) -> None:
    """Two of a kind work side by side under two names, and each can be detached alone.

    Whatever an adapter keeps for a run or for a forward is kept under its name: in `context.adapters[name]` and
    `frame.scratch[name]`.
    """
    one, other = s.make(0), s.make(5)
    _not_a_cache(one)
    host = s.host(one)
    given = s.drawn(one, host)
    own = {name.removeprefix(f"{NAME}."): v for name, v in given["signals"].items() if name.startswith(f"{NAME}.")}
    given["signals"] |= {f"second.{slot}": signal for slot, signal in own.items()}
    with torch.no_grad():
        alone = [extended(host, {NAME: one}, given), extended(host, {"second": other}, given)]
        both = extended(host, {NAME: one, "second": other}, given)
        for number, name in enumerate((NAME, "second")):
            expect(differ([both], [alone[number]]), f"F with both to differ from F with {name!r} alone", "it does not")
        with attached(host.ports, one.taps(NAME)):
            with attached(host.ports, other.taps("second")):
                pass
            context = prepared(host, {NAME: one}, given)
            same([host(given["x"], given["t"], context, SIGMAS[1])], [alone[0]], "F after the second was detached")


@check("adapter", "interleaved")
def interleaved(s: AdapterSubject) -> None:
    """Two runs may take turns: what `prepare` computes belongs to its run.

    It is what `prepare` returns, and comes back as `frame.context.adapters[name]`. Kept on the adapter instead, it is
    overwritten by the next run.
    """
    part = s.make()
    host = s.host(part)
    runs: Sequence[dict[str, Any]] = [s.drawn(part, host, seed) for seed in (0, 1)]
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        wanted = [extended(s.host(part), {NAME: part}, run) for run in runs]
        contexts = [prepared(host, {NAME: part}, run) for run in runs]
        for number, (run, context) in enumerate(zip(runs, contexts, strict=True)):
            found = host(run["x"], run["t"], context, SIGMAS[1])
            same([found], [wanted[number]], f"F of run {number}, taking turns with another run")


@check("adapter", "without-run")
def without_run(s: AdapterSubject) -> None:
    """It works, and acts, where no run and no noise level are known, as in training.

    `context.run` and `frame.sigma` are None then: options such as "in the first half of the steps" do not apply.
    """
    part = s.make()
    _not_a_cache(part)
    host = s.host(part)
    given = s.drawn(part, host)
    with torch.no_grad():
        try:
            found = extended(host, {NAME: part}, given, run=False)
        except Exception as error:
            fail("F without a run", told(error))
    expect(differ([found], [plain(host, given)]), "another F with the adapter", "the same F")


@check("adapter", "no-waiting")
def no_waiting(s: AdapterSubject) -> None:
    """Its taps ask no tensor for its numbers.

    `.item()`, `float(tensor)` and `if tensor > 0` make the program wait for the GPU in every step. What depends on
    numbers is decided in `prepare`, once per run; the noise level is there as a Python number, `frame.sigma`.
    """
    part = s.make()
    host = s.host(part)
    given = s.drawn(part, host)
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        context = prepared(host, {NAME: part}, given)
        with Asked() as asked:
            host(given["x"], given["t"], context, SIGMAS[1])
    expect(not asked.found, "no tensor to be asked for its numbers", f"{len(asked.found)} time(s): {asked.found[:3]}")


@check("adapter", "tuned")
def tuned(s: AdapterSubject) -> None:
    """`tuned()` shares the weights and leaves the original as it was; unknown options are an `LdmkitError`.

    Pipelines offer an adapter's options (a scale, a part of the run) without a copy of its weights. The inherited
    `tuned` does, for every option that is read from `self.config` at use.
    """
    part = s.make()
    config = part.config
    other = part.tuned()
    expect(type(other) is type(part) and other is not part, f"another {type(part).__name__}", type(other).__name__)
    shared = all(a is b for a, b in zip(part.parameters(), other.parameters(), strict=True))
    expect(shared and other.config == config, "the same weights and config", "others")
    given = s.given(part)
    same(ran(s, other, given), ran(s, part, given), "F with the tuned copy")
    try:
        part.tuned(no_such_option=1)
    except LdmkitError as error:
        expect("no_such_option" in str(error), "an error that names 'no_such_option'", str(error))
    else:
        fail("an LdmkitError for tuned(no_such_option=1)", "it was taken")
    expect(part.config is config, "the original's config as it was", "another one")


def _not_a_cache(part: Any) -> None:
    if caching.caches(part):
        raise NotApplicable("it taps gates, and acts in a run's later calls: see the check caches")


share("adapter")
