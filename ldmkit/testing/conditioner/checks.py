"""The contract of conditioners: the declared signal, a null, independent rows, and clear errors."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.conditioner_abilities import HasDefault, KnowsRegion, Proposing, SetsSize
from ldmkit.contracts.example import Example
from ldmkit.contracts.signals import AXES, KIND_OF, Signal, Tokens, dim_of, kind_of, rows_of, select_rows, tensors_of
from ldmkit.errors import LdmkitError
from ldmkit.models.abilities import able
from ldmkit.models.meta import on_meta
from ldmkit.testing.batches import close, differ, same
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail
from ldmkit.testing.conditioner import inputs as inputs
from ldmkit.testing.conditioner import mixins as mixins
from ldmkit.testing.conditioner import ports as ports
from ldmkit.testing.conditioner import tokens as tokens
from ldmkit.testing.conditioner.subject import SIZE, Subject, flat, no_grad, of, read, row
from ldmkit.testing.content import content
from ldmkit.testing.modules import share
from ldmkit.testing.part import examples_of
from ldmkit.testing.placing import placed

THREADS, ROUNDS = 4, 8


def check_conditioner(
    cls: type[Conditioner], config: Mapping[str, Any] | None = None, inputs: Sequence[Any] = (), trained: bool = True
) -> Report:
    """Run every check of conditioners on a class.

    Args:
        config: a small config; None: the class's examples, with their inputs.
        inputs: raw inputs of one sample each, at least two different ones; (): those of the first example, or else
            inputs generated from the schema of `Input`.
        trained: False if it has nothing to learn.
    """
    own = examples_of(cls)
    if own and config is None and not inputs and trained:
        return check_class("conditioner", cls)
    first = own[0] if own else Example()
    example = Example(first.config if config is None else config, inputs or first.inputs, trained and first.trained)
    return check_class("conditioner", cls, example)


def subject(cls: type, example: Example) -> Subject:
    """The subject of the checks."""
    return of(cls, example)


@check("conditioner", "signal")
def signal(s: Subject) -> None:
    """The signal has the declared `kind` and `dim`, one row per input, finite values, and an unmasked token per row.

    Tokens are (B, L, dim) with a bool mask (B, L) or None, a vector is (B, dim), a plane (B, dim, h, w). Pipelines
    check `kind` and `dim` before any weight is read: set them on the class, or in `__init__` from the config.
    Attention over a row of tokens whose mask is all False divides by zero: keep at least one token.
    """
    part = s.make()
    kind, dim = getattr(part, "kind", None), getattr(part, "dim", None)
    expect(kind in AXES, f"`kind` to be one of {', '.join(AXES)}", f"{kind!r}")
    expect(type(dim) is int and dim > 0, "`dim` to be a positive int", f"{dim!r}")
    values = s.given(part)
    found = no_grad(lambda: s.returned(part, values))
    expect(type(found) in KIND_OF, "a ldmkit.Tokens, Vector, Plane or Residuals", f"a {type(found).__name__}")
    _as_declared(part, found, len(values), "the signal")


def _as_declared(part: Conditioner, found: Signal, rows: int, what: str) -> None:
    axes = AXES[part.kind]
    shapes = [tuple(tensor.shape) for tensor in tensors_of(found)]
    expect(kind_of(found) == part.kind, f"{what}: {part.kind}, as declared", f"{kind_of(found)}")
    expect(all(len(shape) == axes for shape in shapes), f"{what}: {axes} axes", f"shape {shapes}")
    expect(rows_of(found) == rows, f"{what}: {rows} rows for {rows} inputs", f"{rows_of(found)} rows")
    expect(dim_of(found) == part.dim, f"{what}: dim {part.dim}, as declared", f"{dim_of(found)}, shape {shapes}")
    for tensor in tensors_of(found):
        expect(tensor.is_floating_point(), f"{what}: floating-point values", f"{tensor.dtype}")
        expect(bool(tensor.isfinite().all()), f"{what}: finite values", "NaN or infinity")
    if isinstance(found, Tokens) and found.mask is not None:
        mask, wanted = found.mask, tuple(found.value.shape[:2])
        seen = f"{mask.dtype}, shape {tuple(mask.shape)}"
        expect(mask.dtype == torch.bool and tuple(mask.shape) == wanted, f"{what}: a bool mask {wanted}", seen)
        empty = [i for i, some in enumerate(mask.any(dim=1).tolist()) if not some]
        expect(not empty, f"{what}: at least one token to attend to in every row", f"none in rows {empty}")


@check("conditioner", "declared-on-meta")
def declared_on_meta(s: Subject) -> None:
    """`kind`, `dim` and `has_null` are the same on the meta device.

    Pipelines are composed, and dims compared, there. They may depend on the config, but not on weights or files.
    """
    real = s.build()
    with on_meta():
        bare = s.build()
    for name in ("kind", "dim", "has_null"):
        found, wanted = getattr(bare, name, None), getattr(real, name, None)
        expect(found == wanted, f"{name} {wanted!r} on the meta device", f"{found!r}")


share("conditioner", exclude=("batch-invariance", "order", "inputs-untouched"))
check("conditioner", "placed")(placed)


@check("conditioner", "float64")
def float64(s: Subject) -> None:
    """Converted to float64, it returns float64, with the same values up to rounding.

    Constants created in `forward` must follow the dtype of the weights; an intermediate float32 is detected here. A
    conditioner without weights stays in float32, and the pipeline converts its signal.
    """
    part = s.make()
    wanted = [tensor.double() for tensor in tensors_of(no_grad(lambda: s.signal(part, s.given(part))))]
    wide = s.make().to(torch.float64)
    found = tensors_of(no_grad(lambda: s.signal(wide, s.given(wide))))
    for tensor in found:
        expect(tensor.dtype == wide.dtype, f"a signal of {wide.dtype}", f"{tensor.dtype}")
    close([tensor.double() for tensor in found], wanted, "the signal in float64", 1e-3)


@check("conditioner", "listens")
def listens(s: Subject) -> None:
    """Different inputs give different signals.

    A conditioner that returns the same signal for every input trains without an error, but does nothing.
    """
    part = s.make()
    values = s.given(part)
    whole = no_grad(lambda: s.signal(part, values))
    for i, j in combinations(range(len(values)), 2):
        one, other = read(row(whole, i)), read(row(whole, j))
        alike = all(a.shape == b.shape for a, b in zip(one, other, strict=True)) and not differ(one, other)
        expect(not alike, f"different signals for inputs[{i}] and inputs[{j}]", "the same one")


@check("conditioner", "batch-invariance")
def batch_invariance(s: Subject) -> None:
    """An input gives the same signal alone and in a batch, up to rounding.

    Shorter sequences are padded with masked tokens; the other tokens must not depend on the amount of padding.
    Statistics over the batch break this too.
    """
    part = s.make()
    values = s.given(part)
    whole = no_grad(lambda: s.signal(part, values))
    for i, value in enumerate(values):
        alone = no_grad(lambda value=value: s.signal(part, [value]))  # type: ignore[misc]
        close(read(alone), read(row(whole, i)), f"inputs[{i}] alone, and in a batch of {len(values)}")


@check("conditioner", "order")
def order(s: Subject) -> None:
    """Inputs in another order give the same rows in that order."""
    part = s.make()
    values = s.given(part)
    whole = no_grad(lambda: s.signal(part, values))
    turned = no_grad(lambda: s.signal(part, values[::-1]))
    for i in range(len(values)):
        last = len(values) - 1 - i
        close(read(row(turned, last)), read(row(whole, i)), f"inputs[{i}] in a batch in reverse order")


def _null(s: Subject, part: Conditioner, found: Signal) -> Signal:
    if not part.has_null:
        raise NotApplicable("has_null is False: its input cannot be left out")
    return no_grad(lambda: part.null(found))


@check("conditioner", "null-shape")
def null_shape(s: Subject) -> None:
    """`null(like)` has the kind, shapes, dtype and device of `like`.

    Guidance and training substitute it for the signal, row by row. Zeros, the default, always fit; a learned null must
    be expanded to the rows (and, for tokens, padded to the length) of `like`.
    """
    part = s.make()
    values = s.given(part)
    found = no_grad(lambda: s.signal(part, values))
    null = _null(s, part, found)
    expect(type(null) in KIND_OF, "a ldmkit.Tokens, Vector, Plane or Residuals", f"a {type(null).__name__}")
    _as_declared(part, null, len(values), "the null")
    for one, other in zip(tensors_of(null), tensors_of(found), strict=True):
        wanted = f"shape {tuple(other.shape)}, {other.dtype}, {other.device}"
        came = f"shape {tuple(one.shape)}, {one.dtype}, {one.device}"
        expect(came == wanted, f"the null like the signal: {wanted}", came)
    alone = no_grad(lambda: part.null(row(found, 0)))
    _as_declared(part, alone, 1, "the null for one row")


@check("conditioner", "null-usable")
def null_usable(s: Subject) -> None:
    """The null does not depend on earlier inputs, and can be mixed with the signal row by row.

    It means "no condition", so it may depend only on the weights and the shape of `like`: training and guidance must
    use the same null.
    """
    part = s.make()
    values = s.given(part)
    found = no_grad(lambda: s.signal(part, values))
    null = _null(s, part, found)
    new = s.make()
    same(flat(no_grad(lambda: new.null(found))), flat(null), "the null of a part that has encoded nothing yet")
    no_grad(lambda: s.signal(part, values[-1:]))
    same(flat(no_grad(lambda: part.null(found))), flat(null), "the null after another input was encoded")
    keep = torch.tensor([i % 2 == 0 for i in range(len(values))], device=tensors_of(found)[0].device)
    mixed = select_rows(keep, found, null)
    for i in range(len(values)):
        wanted = read(row(found if i % 2 == 0 else null, i))
        same(read(row(mixed, i)), wanted, f"row {i} of a mixture of signal and null")


@check("conditioner", "leave-out")
def leave_out(s: Subject) -> None:
    """`example` and `default` return parsed inputs, which `forward` accepts directly.

    If the caller gives no input, a pipeline encodes `default(size)`, or `example(size)` to get the null's shape,
    without calling `parse`. A conditioner that has neither needs an input in every run, even if it has a null.
    """
    part = s.make()
    defaulting = able(part, HasDefault)
    made = {"default": None if defaulting is None else defaulting.default(SIZE), "example": part.example(SIZE)}
    if all(value is None for value in made.values()):
        raise NotApplicable("it has neither: its input cannot be left out")
    for name, value in made.items():
        if value is None:
            continue
        try:
            part.parse(value, name)
            found = no_grad(lambda value=value: s.signal(part, [value]))  # type: ignore[misc]
        except LdmkitError as error:
            fail(f"{name}({SIZE}) to be a valid input", str(error))
        _as_declared(part, found, 1, f"the signal of {name}({SIZE})")


@check("conditioner", "proposals")
def proposals(s: Subject) -> None:
    """`propose` works with any set of given inputs, and is deterministic in its seed.

    It is called in every run without its input, whatever else is given: return None if the inputs that it reads are
    missing. Otherwise it returns a parsed input, which is passed to `forward` directly.
    """
    part = s.make()
    if (proposing := able(part, Proposing)) is None:
        raise NotApplicable("it does not inherit ldmkit.Proposing")
    with torch.no_grad():
        first, again = (proposing.propose({}, SIZE, 7) for _ in range(2))
    expect(content(first) == content(again), f"the same proposal for the same seed: {first!r:.100}", f"{again!r:.100}")
    if first is not None:
        _as_declared(part, no_grad(lambda: s.signal(part, [first])), 1, "the signal of a proposal")


@check("conditioner", "picture-size")
def picture_size(s: Subject) -> None:
    """`picture_size` returns None or (height, width), and `known` None or a picture and its mask.

    `picture_size(value, factor)` is the size that a plane's input requires. `known(value)` is what the result must
    keep: a picture (3, H, W) in [-1, 1] and a mask (1, H, W), 0 where it is kept.
    """
    part = s.make()
    sizing, knowing = able(part, SetsSize), able(part, KnowsRegion)
    if sizing is None and knowing is None:
        raise NotApplicable("it inherits neither ldmkit.SetsSize nor ldmkit.KnowsRegion")
    for number, value in enumerate(s.given(part)):
        size = None if sizing is None else sizing.picture_size(value, 2)
        fine = size is None or (len(size) == 2 and all(type(side) is int and side > 0 for side in size))
        expect(fine, f"picture_size of inputs[{number}]: None or (height, width)", f"{size!r}")
        known = None if knowing is None else knowing.known(value)
        if known is not None:
            picture, mask = known
            wanted = ((3, *picture.shape[-2:]), (1, *picture.shape[-2:]))
            shapes = (tuple(picture.shape), tuple(mask.shape))
            expect(shapes == wanted, f"known of inputs[{number}]: shapes {wanted}", f"{shapes}")


@check("conditioner", "threads")
def threads(s: Subject) -> None:
    """Several threads can use it at once, with the same results as one.

    Threads may share a pipeline. Keep the state of a call in local variables, never in attributes.
    """
    part = s.make()
    values = s.given(part)
    wanted = [flat(no_grad(lambda v=v: s.signal(part, [v]))) for v in values]  # type: ignore[misc]
    problems: list[BaseException] = []

    def work(number: int) -> None:
        mine = number % len(values)
        try:
            for _ in range(ROUNDS):
                found = no_grad(lambda: s.signal(part, [values[mine]]))
                same(flat(found), wanted[mine], f"inputs[{mine}] beside {THREADS - 1} other threads")
        except BaseException as error:
            problems.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(before)
    if problems:
        raise problems[0]
