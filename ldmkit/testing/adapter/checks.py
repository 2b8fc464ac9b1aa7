"""The contract of adapters: they act through ports, may have their own conditions, and leave no trace.

Adapters are checked on a denoiser: the one that the example names, or the kit's `ldmkit.testing.TinyDenoiser`, a
minimal network with a port of every family. A new adapter must be the identity; for the other checks the kit replaces
all of its weights. The checks from `meta` on are shared by all modules.
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
    """The subject of the checks: a class and one of its examples."""
    return AdapterSubject(cls, example.config, example.trained, example.denoiser, example.plane_factor)


def check_adapter(
    cls: type[Adapter],
    config: Mapping[str, Any] | None = None,
    *,
    denoiser: Mapping[str, Any] | None = None,
    plane_factor: int = 1,
) -> Report:
    """Run all checks of an adapter.

    Args:
        config: its config; None: that of its first example, with that example's denoiser.
        denoiser: the denoiser that it extends, `{"type": ..., "config": ...}`, by name or class; None: the kit's
            `TinyDenoiser`.
        plane_factor: rows and columns of a slot's plane per row and column of the latents.
    """
    example = Example(config or {}, denoiser=denoiser, plane_factor=plane_factor)
    return check_class("adapter", cls, None if config is None else example)


@check("adapter", "host")
def host(s: AdapterSubject) -> None:
    """The denoiser that its example names is installed, and accepts its config.

    Adapters are checked on a denoiser: the kit's `ldmkit.testing.TinyDenoiser`, unless `Example.denoiser` names another
    as `{"type": ..., "config": ...}`. Without it, nothing else is checked.
    """
    try:
        s.bare_host()
    except LdmkitError as error:
        fail(f"to build the denoiser {s.denoiser!r:.200}", str(error))


@check("adapter", "slots")
def slots(s: AdapterSubject) -> None:
    """`slots` maps names to `ldmkit.Slot`, and `drops(name)` returns a bool for each.

    They become slots of the pipeline, named `<name>.<slot>`, and are filled by conditioners like the denoiser's slots.
    """
    part = s.make()
    expect(isinstance(part.slots, Mapping), "slots: name -> Slot", f"{part.slots!r:.80}")
    for name, slot in part.slots.items():
        expect(isinstance(name, str) and isinstance(slot, Slot), "slots: name -> Slot", f"{name!r}: {slot!r}")
        expect("." not in name, "names of slots without a dot", f"{name!r}")
        expect(isinstance(part.drops(name), bool), f"drops({name!r}) to be True or False", f"{part.drops(name)!r}")
        expect(isinstance(part.has_null(name), bool), f"has_null({name!r}): True or False", f"{part.has_null(name)!r}")


@check("adapter", "taps")
def taps(s: AdapterSubject) -> None:
    """`taps(name)` uses ports that the denoiser has, and returns equal taps at every call, also for tuned copies.

    Several pipelines may share modules and attach the same adapter; taps that are already attached are recognised by
    comparing them. So make a tap a small frozen dataclass that holds its adapter's name; whatever differs between runs,
    including weights and options, it reads from `frame.context.adapters[name]`.
    """
    part = s.make()
    host = s.host(part)
    found = dict(part.taps(NAME))
    expect(bool(found or part.conditioner_taps(NAME)), "at least one tap", "none")
    for port, tap in found.items():
        known = suggest(port, host.ports)
        expect(port in host.ports, f"a port of {type(host).__name__} ({known})", f"{port!r}")
        expect(callable(tap), f"a callable tap at {port!r}", type(tap).__name__)
    expect(dict(part.taps(NAME)) == found, "equal taps from a second call", "different ones")
    expect(dict(part.tuned().taps(NAME)) == found, "equal taps from a tuned copy", "different ones")
    expect(dict(part.taps("other")) != found, "different taps for another name", "the same")


@check("adapter", "identity")
def identity(s: AdapterSubject) -> None:
    """A new adapter changes nothing: F is the same with and without it, bit for bit.

    Training then starts from the unchanged denoiser. End every branch in a zero-initialised layer and add its output;
    multiplying, or recomputing a value and replacing it, rounds differently.
    """
    part = s.build().eval()
    host = s.host(part)
    given = s.drawn(part, host)
    base = plain(host, given)
    with torch.no_grad():
        same([extended(host, {NAME: part}, given)], [base], "F with a new adapter")


@check("adapter", "acts")
def acts(s: AdapterSubject) -> None:
    """With weights other than its initial ones, it changes F.

    Otherwise nothing that it learns has an effect.
    """
    part = s.make()
    _not_a_cache(part)
    host = s.host(part)
    given = s.drawn(part, host)
    expect(differ(ran(s, part, given), [plain(host, given)]), "a different F with the adapter", "the same F")


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
        expect(differ(changed, base), f"a different F where {name!r} differs", "the same F")


@check("adapter", "slots-absent")
def slots_absent(s: AdapterSubject) -> None:
    """Its slots may be empty: a run without its conditions works.

    `prepare` then returns None, or a state with which the taps return their value unchanged.
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
    """Rows without its conditions behave as in a run without them, and do not affect other rows.

    A batch may mix samples that have the condition with samples that lack it, or for which guidance drops it: there,
    `context.present["<name>.<slot>"]` (B,) is False and the signal holds a null. A sample must give the same result
    alone and in such a batch: multiply what is added by `present`.
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


@check("adapter", "nulls")
def nulls(s: AdapterSubject) -> None:
    """Where a slot has a null of its own (`has_null`), it acts with that in rows whose condition guidance drops.

    In these rows `context.present` is False, `context.given` True, and the signal is the null, or a negative in its
    place. Rows that were given nothing have False in both.
    """
    part = s.make()
    if not any(part.has_null(slot) for slot in part.slots):
        raise NotApplicable("no slot has a null of its own")
    host = s.host(part)
    given = s.drawn(part, host)
    with torch.no_grad():
        whole = extended(host, {NAME: part}, given)
        found = extended(host, {NAME: part}, given, absent=[0], dropped=True)
    close([found], [whole], "F with the same signal where guidance drops the input")


@check("adapter", "no-entry")
def no_entry(s: AdapterSubject) -> None:
    """Its taps do nothing in a run without the adapter.

    Pipelines with and without the adapter may share a denoiser, to which it stays attached. If
    `frame.context.adapters` has no entry under its name, a tap must return its value unchanged, bit for bit.
    """
    part = s.make()
    host = s.host(part)
    given = s.drawn(part, host)
    base = plain(host, given)
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        same([plain(host, given)], [base], "F of a run without the adapter, with its taps attached")


@check("adapter", "detach")
def detach(s: AdapterSubject) -> None:
    """Detached, it leaves no trace: F as before, bit for bit, the same state-dict keys, and no taps on ports.

    Act only through ports: do not replace layers of the denoiser, and store nothing on its modules.
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
    """Training it leaves a frozen denoiser frozen: no parameter there requires a gradient or changes.

    Gradients pass through the denoiser to the adapter. The training stage decides which weights are trained.
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
    """Two instances work side by side under different names, and each can be detached separately.

    Keep the state of a run or of a forward pass under the adapter's name: in `context.adapters[name]` and
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
    """Two runs may be interleaved: what `prepare` computes belongs to its run.

    Return it from `prepare`; taps then find it in `frame.context.adapters[name]`. Stored on the adapter instead, it
    would be overwritten by the next run.
    """
    part = s.make()
    host = s.host(part)
    runs: Sequence[dict[str, Any]] = [s.drawn(part, host, seed) for seed in (0, 1)]
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        wanted = [extended(s.host(part), {NAME: part}, run) for run in runs]
        contexts = [prepared(host, {NAME: part}, run) for run in runs]
        for number, (run, context) in enumerate(zip(runs, contexts, strict=True)):
            found = host(run["x"], run["t"], context, SIGMAS[1])
            same([found], [wanted[number]], f"F of run {number}, interleaved with another run")


@check("adapter", "without-run")
def without_run(s: AdapterSubject) -> None:
    """It works, and has an effect, without a run and a noise level, as in training.

    `context.run` and `frame.sigma` are then None: options such as "only in the first half of the steps" do not apply.
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
    expect(differ([found], [plain(host, given)]), "a different F with the adapter", "the same F")


@check("adapter", "no-waiting")
def no_waiting(s: AdapterSubject) -> None:
    """Its taps never read tensor values on the host.

    `.item()`, `float(tensor)` and `if tensor > 0` synchronise with the GPU at every step. Decide what depends on
    values in `prepare`, once per run; the noise level is available as a Python number, `frame.sigma`.
    """
    part = s.make()
    host = s.host(part)
    given = s.drawn(part, host)
    with torch.no_grad(), attached(host.ports, part.taps(NAME)):
        context = prepared(host, {NAME: part}, given)
        with Asked() as asked:
            host(given["x"], given["t"], context, SIGMAS[1])
    expect(not asked.found, "no tensor values read on the host", f"{len(asked.found)} time(s): {asked.found[:3]}")


@check("adapter", "tuned")
def tuned(s: AdapterSubject) -> None:
    """`tuned()` shares the weights and leaves the original unchanged; unknown options raise an `LdmkitError`.

    Pipelines change an adapter's options (a scale, an interval of the run) without copying its weights. The inherited
    `tuned` does this for every option that is read from `self.config` when it is used.
    """
    part = s.make()
    config = part.config
    other = part.tuned()
    expect(type(other) is type(part) and other is not part, f"another {type(part).__name__}", type(other).__name__)
    shared = all(a is b for a, b in zip(part.parameters(), other.parameters(), strict=True))
    expect(shared and other.config == config, "the same weights and config", "different ones")
    given = s.given(part)
    same(ran(s, other, given), ran(s, part, given), "F with the tuned copy")
    try:
        part.tuned(no_such_option=1)
    except LdmkitError as error:
        expect("no_such_option" in str(error), "an error that names 'no_such_option'", str(error))
    else:
        fail("an LdmkitError for tuned(no_such_option=1)", "it was accepted")
    expect(part.config is config, "the original's config unchanged", "a different one")


def _not_a_cache(part: Any) -> None:
    if caching.caches(part):
        raise NotApplicable("it taps gates, so it acts only in a run's later calls: see the check caches")


share("adapter")
