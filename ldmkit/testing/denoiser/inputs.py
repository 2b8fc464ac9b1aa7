"""Checks of a denoiser's input and slots."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from ldmkit.contracts.signals import Join, SignalKind, Slot, Tokens
from ldmkit.contracts.step import Context
from ldmkit.errors import LdmkitError
from ldmkit.testing.batches import close, differ, normal, same
from ldmkit.testing.checks import NotApplicable, check, expect, fail, told
from ldmkit.testing.denoiser.subject import LENGTH, DenoiserSubject, call, inputs, size_of, with_axes
from ldmkit.testing.modules import ROWS


@check("denoiser", "declared")
def declared(s: DenoiserSubject) -> None:
    """`channels`, `smallest` and `slots` are declared as the contract requires.

    `channels` and `smallest` are positive ints; `latent_axes` is the number of axes of its latents after batch and
    channels: 2 for pictures, 3 for videos, 0 for vectors, which planes cannot be joined to. `slots` maps names to
    `ldmkit.Slot`: a kind of signal (tokens, vector, plane, residuals), a positive dim, and how several signals for the
    slot are joined. Pipelines check conditioners against these before any weight is read.
    """
    part = s.make()
    for name in ("channels", "smallest"):
        value = getattr(part, name, None)
        expect(type(value) is int and value > 0, f"{name} to be a positive int", f"{value!r}")
    axes = part.latent_axes
    expect(type(axes) is int and axes >= 0, "latent_axes to be an int >= 0", f"{axes!r}")
    planes = [name for name, slot in part.slots.items() if isinstance(slot, Slot) and slot.kind == "plane"]
    expect(axes >= 2 or not planes, "no slots for planes, as its latents have no rows and columns", f"{planes}")
    for name, slot in part.slots.items():
        expect(isinstance(name, str) and isinstance(slot, Slot), "slots: name -> Slot", f"{name!r}: {slot!r}")
        expect(
            slot.kind in get_args(SignalKind), f"slot {name!r} of a kind in {get_args(SignalKind)}", f"{slot.kind!r}"
        )
        expect(type(slot.dim) is int and slot.dim > 0, f"slot {name!r} of a positive dim", f"{slot.dim!r}")
        expect(slot.join in get_args(Join), f"slot {name!r} to join in one of {get_args(Join)}", f"{slot.join!r}")


@check("denoiser", "shape")
def shape(s: DenoiserSubject) -> None:
    """x (B,channels,h,w) gives F (B,channels,h,w), finite and in the network's dtype; likewise for other axes.

    A network that predicts more (a variance) may return further channels after these; sampling drops them.
    """
    part = s.make()
    given = s.given(part)
    with torch.no_grad():
        _check_output(part, given["x"], call(part, given))


def _check_output(part: Any, x: Tensor, out: Tensor) -> None:
    fits = out.ndim == x.ndim and out.shape[0] == x.shape[0] and out.shape[2:] == x.shape[2:]
    expect(fits and out.shape[1] >= part.channels, f"F of shape {tuple(x.shape)}", f"{tuple(out.shape)}")
    expect(bool(out.isfinite().all()), f"a finite F for latents {tuple(x.shape[2:])}", "NaN or infinity")


@check("denoiser", "smallest")
def smallest(s: DenoiserSubject) -> None:
    """Latents of `smallest` rows and columns work; larger ones work too, or are refused with an `LdmkitError`.

    Pipelines compare the requested size with `smallest` before a run. A network with downsampling needs enough rows and
    columns for its deepest level; one that divides latents into patches says which multiples fit.
    """
    part = s.make()
    if part.latent_axes < 2:
        raise NotApplicable("its latents have no rows and columns")
    least = int(part.smallest)
    for height, width in ((least, least), (least, least + 1), (least + 3, least + 2), (2 * least + 5, least)):
        given = inputs(part, with_axes(part, (height, width)))
        try:
            with torch.no_grad():
                out = call(part, given)
        except LdmkitError:
            expect(
                (height, width) != (least, least), f"F for the smallest latents, {least}x{least}", "they are refused"
            )
        except Exception as error:
            fail(f"F for latents {height}x{width}, or an LdmkitError", told(error))
        else:
            _check_output(part, given["x"], out)


@check("denoiser", "sizes-in-turn")
def sizes_in_turn(s: DenoiserSubject) -> None:
    """Results for latents of one size do not depend on sizes of earlier calls.

    Cache position embeddings and masks by rows and columns (and by device and dtype), not by the number of cells: 8x12
    and 12x8 have the same number.
    """
    used = s.make()
    if used.latent_axes < 2:
        raise NotApplicable("its latents have no rows and columns")
    h, w = size_of(used)[-2:]
    with torch.no_grad():
        call(used, inputs(used, size_of(used)))
        for size in (with_axes(used, frame) for frame in ((w, h), (h, w), (h, h))):
            fresh = s.make()
            found = call(used, inputs(used, size))
            close([found], [call(fresh, inputs(fresh, size))], f"F for latents {size} after others")


@check("denoiser", "x-matters")
def x_matters(s: DenoiserSubject) -> None:
    """F depends on every channel of x.

    A channel that the network ignores cannot be denoised.
    """
    part = s.make()
    given = s.given(part)
    with torch.no_grad():
        base = call(part, given)
        for channel in range(part.channels):
            x = given["x"].clone()
            x[:, channel] = normal(*x[:, channel].shape, like=part, seed=50)
            moved = differ([call(part, {**given, "x": x})], [base])
            expect(moved, f"a different F where channel {channel} of x differs", "the same F")


@check("denoiser", "time-matters")
def time_matters(s: DenoiserSubject) -> None:
    """F depends on t, row by row; a single time for all rows may be an expanded scalar.

    t (B,) float32 is the process's time for the network, and need not be an integer. Samplers pass `time.expand(B)`,
    whose rows share memory: do not write to it.
    """
    part = s.make()
    given = s.given(part)
    with torch.no_grad():
        base = call(part, given)
        for row in range(ROWS):
            times = given["t"].clone()
            times[row] += 50
            moved = differ([call(part, {**given, "t": times})[row]], [base[row]])
            expect(moved, f"a different F for row {row} at another time of that row", "the same F")
        one = torch.tensor(250.5, device=part.device)
        expanded = call(part, {**given, "t": one.expand(ROWS)})
        close([expanded], [call(part, {**given, "t": torch.stack([one] * ROWS)})], "F for an expanded time")


@check("denoiser", "slots-matter")
def slots_matter(s: DenoiserSubject) -> None:
    """Every slot changes F.

    A slot that is declared but not read is a condition that is silently ignored. (A new network may ignore it: the kit
    first replaces all weights that are initialised to zero.)
    """
    part = s.make()
    if not part.slots:
        raise NotApplicable("it takes no conditions")
    given = s.given(part)
    others = inputs(part, size_of(part), seed=1)["signals"]
    with torch.no_grad():
        base = call(part, given)
        for name in part.slots:
            changed = call(part, {**given, "signals": {**given["signals"], name: others[name]}})
            expect(differ([changed], [base]), f"a different F where slot {name!r} differs", "the same F")


@check("denoiser", "optional-slots")
def optional_slots(s: DenoiserSubject) -> None:
    """Slots that are not `required` may be left out, one at a time or all together.

    `prepare` then gets a mapping without them. Leaving a slot out differs from a null, which is an ordinary signal.
    """
    part = s.make()
    optional = [name for name, slot in part.slots.items() if not slot.required]
    if not optional:
        raise NotApplicable("it has no optional slot")
    given = s.given(part)
    for left_out in [[name] for name in optional] + [optional]:
        signals = {name: signal for name, signal in given["signals"].items() if name not in left_out}
        try:
            with torch.no_grad():
                out = call(part, {**given, "signals": signals})
        except Exception as error:
            fail(f"F without the optional {', '.join(left_out)}", told(error))
        _check_output(part, given["x"], out)


@check("denoiser", "required-slots")
def required_slots(s: DenoiserSubject) -> None:
    """Without a `required` slot, `prepare` raises an `LdmkitError` that names the slot.

    So the user learns what is missing, instead of getting an error from a matrix product.
    """
    part = s.make()
    required = [name for name, slot in part.slots.items() if slot.required]
    if not required:
        raise NotApplicable("it has no required slot")
    signals = s.given(part)["signals"]
    for name in required:
        try:
            with torch.no_grad():
                part.prepare({key: signal for key, signal in signals.items() if key != name})
        except LdmkitError as error:
            expect(name in str(error), f"an error that names slot {name!r}", str(error))
        except Exception as error:
            fail(f"an LdmkitError for the missing slot {name!r}", told(error))
        else:
            fail(f"an error for the missing slot {name!r}", "prepare() took it")


@check("denoiser", "masks")
def masks(s: DenoiserSubject) -> None:
    """Tokens whose mask is False have no effect, and a sample without any token gets a finite F.

    Sequences of a batch are padded to one length. True in the mask means "attend", and a mask of None attends to all
    tokens. A softmax over no tokens is NaN unless this case is handled.
    """
    part = s.make()
    names = [name for name, slot in part.slots.items() if slot.kind == "tokens"]
    if not names:
        raise NotApplicable("it has no slot for tokens")
    given = s.given(part)
    keep = torch.arange(LENGTH, device=part.device) < LENGTH - 2
    half = keep.expand(ROWS, LENGTH)
    for name in names:
        value = given["signals"][name].value
        other = torch.where(half[..., None], value, 10 * normal(*value.shape, like=part, seed=60))
        with torch.no_grad():
            found = [_with(s, part, given, name, Tokens(v, half)) for v in (value, other)]
            close(found[:1], found[1:], f"F with other values in masked tokens of slot {name!r}")
            unmasked = _with(s, part, given, name, Tokens(value, None))
            full = _with(s, part, given, name, Tokens(value, torch.ones_like(half)))
            close([unmasked], [full], f"F without a mask and with a full one in slot {name!r}")
            expect(differ(found[:1], [full]), f"a different F with tokens of slot {name!r} masked", "the same F")
            empty = half.clone()
            empty[0] = False
            _check_output(part, given["x"], _with(s, part, given, name, Tokens(value, empty)))


def _with(s: DenoiserSubject, part: Any, given: dict[str, Any], name: str, tokens: Tokens) -> Tensor:
    return call(part, {**given, "signals": {**given["signals"], name: tokens}})


@check("denoiser", "context")
def context(s: DenoiserSubject) -> None:
    """`prepare` returns a new, writable `Context` for every run.

    A run stores there its signals, which rows have a condition, its noise levels, and the states of its adapters. A
    context shared by two runs, or a default `{}` shared by all instances, mixes up their conditions.
    """
    part = s.make()
    signals = s.given(part)["signals"]
    with torch.no_grad():
        first, second = part.prepare(signals), part.prepare(signals)
    expect(isinstance(first, Context), "an ldmkit.Context", type(first).__name__)
    expect(first is not second, "a new context from every prepare()", "the same object")
    expect(first.adapters is not second.adapters, "separate adapter states for every context", "a shared dict")
    first.signals, first.present, first.run = signals, {}, None


@check("denoiser", "sigma")
def sigma(s: DenoiserSubject) -> None:
    """The argument `sigma` is only for taps: F is the same with and without it.

    The network itself reads t. In training and in some samplers, the noise level is not known as a Python number.
    """
    part = s.make()
    given = s.given(part)
    with torch.no_grad():
        same([call(part, given, 2.5)], [call(part, given)], "F with sigma=2.5, and without")
