"""The encoded conditions of a run: routed to slots, joined, with nulls and views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ldmkit.contracts.arguments import check_callback, fraction, list_of, mapping_of, names_of, numbers_of
from ldmkit.contracts.guidance import View
from ldmkit.contracts.signals import (
    AXES,
    KIND_OF,
    Join,
    Plane,
    Residuals,
    Signal,
    Slot,
    Tokens,
    Vector,
    cat_rows,
    dim_of,
    full_mask,
    kind_of,
    rows_of,
    select_rows,
    tensors_of,
)
from ldmkit.errors import CompositionError, InputError, shown, suggest


class Encoded(NamedTuple):
    """One conditioner's contribution.

    Args:
        name: the input that it comes from, by which guidance drops it.
        slot: the slot it fills.
        signal: the condition.
        null: its replacement where it is dropped, with as many rows as `signal`; None if it is never dropped.
        given: one per row, False if the input is absent and `signal` already contains the null; () = all given.
        same: `signal` equals the null in every row, so dropping it has no effect.
        conditioner: its name; "" if it equals `name`.
        opposed: one per row, True if the null is a negative input that the caller gave; () = none.
    """

    name: str
    slot: str
    signal: Signal
    null: Signal | None
    given: tuple[bool, ...] = ()
    same: bool = False
    conditioner: str = ""
    opposed: tuple[bool, ...] = ()

    def real(self, dropped: bool) -> tuple[bool, ...]:
        """One per row: whether it holds a condition that the caller gave, also a negative, rather than a null."""
        rows = rows_of(self.signal)
        if dropped and self.null is not None:
            return self.opposed or (False,) * rows
        return self.given or (True,) * rows


class SlotSignals(NamedTuple):
    """Signals by slot for a batch, and slot -> (B,) bool, True in rows with a real condition rather than a null."""

    signals: dict[str, Signal]
    present: dict[str, Tensor]


@dataclass(frozen=True)
class Conditioning:
    """Encoded conditions in spec order, and the slots that they fill."""

    parts: tuple[Encoded, ...]
    slots: Mapping[str, Slot]

    @property
    def names(self) -> tuple[str, ...]:
        """Unique names of the inputs that guidance may drop, in spec order."""
        return tuple(dict.fromkeys(part.name for part in self.parts if part.null is not None))

    @property
    def absent(self) -> frozenset[str]:
        """Those of `names` that were not given, whose signal is already the null."""
        return frozenset(self.names) - {part.name for part in self.parts if not part.same and part.null is not None}

    def view(self, drop: Iterable[str] = frozenset()) -> dict[str, Signal]:
        """Signals by slot, with the named inputs replaced by their nulls.

        Raises:
            InputError: `names-type`: not a collection of names.
            CompositionError: `unknown-condition`: not one of `names`.
        """
        return self.batch([names_of(drop, "drop")]).signals

    def batch(self, views: Sequence[View]) -> SlotSignals:
        """Several views concatenated along the batch: view v of sample b is row v * B + b.

        Raises:
            InputError: `no-views`, `views-type`, `names-type`.
            CompositionError: `unknown-condition`.
        """
        views = [names_of(view, f"views[{i}]") for i, view in enumerate(_views(views))]
        for view in views:
            for name in view - set(self.names):
                raise _unknown(name, self.names)
        signals = self._joined([(p.slot, cat_rows([_signal_in(p, view) for view in views])) for p in self.parts])
        present: dict[str, Tensor] = {}
        for part in self.parts:
            rows = [row for view in views for row in part.real(part.name in view)]
            real = torch.tensor(rows, device=_device(part.signal))
            present[part.slot] = present[part.slot] | real if part.slot in present else real
        return SlotSignals(signals, present)

    def given(self, views: int = 1) -> dict[str, Tensor]:
        """Slot -> (views * B,) bool, True in rows whose input was given, whether a view drops it or not."""
        given: dict[str, Tensor] = {}
        for part in self.parts:
            rows = [*(part.given or (True,) * rows_of(part.signal))] * views
            real = torch.tensor(rows, device=_device(part.signal))
            given[part.slot] = given[part.slot] | real if part.slot in given else real
        return given

    def dropout(self, rates: Mapping[str, float], uniform: Callable[[str], Tensor]) -> dict[str, Signal]:
        """Training view: each named input is replaced by its null with probability `rates[name]` per row.

        Args:
            rates: input name -> probability in [0, 1]; other inputs are kept.
            uniform: name -> (B,) numbers in [0, 1), one draw per input, so that all signals of an input drop together.

        Raises:
            InputError: `not-a-mapping`, `rate-range`, `callback-type`, `draws`.
            CompositionError: `unknown-condition`.
        """
        rates = mapping_of(rates, "rates", "input name -> probability")
        for name, rate in rates.items():
            if name not in self.names:
                raise _unknown(name, self.names)
            if (share := fraction(rate)) is None:
                fits = "a probability in [0, 1]"
                raise InputError("rate-range", f"got {shown(rate)}", where=f"rates.{name}", fits=fits)
            rates[name] = share
        check_callback(uniform, "uniform", "a function of an input's name")
        keep = {name: _draws(uniform(name), self._rows(name), name) >= rate for name, rate in rates.items()}
        return self.kept(keep).signals

    def kept(self, kept: Mapping[str, Tensor]) -> SlotSignals:
        """Training view: each named input keeps its condition in some rows and is replaced by its null in the others.

        Args:
            kept: input name -> (B,) bool, True in rows that keep it; other inputs are kept in every row. All signals
                of an input are dropped together.

        Raises:
            InputError: `row-mask`.
            CompositionError: `unknown-condition`.
        """
        for name, mask in kept.items():
            if name not in self.names:
                raise _unknown(name, self.names)
            if mask.dtype != torch.bool or tuple(mask.shape) != (self._rows(name),):
                got, fits = f"{tuple(mask.shape)} of {mask.dtype}", f"({self._rows(name)},) of torch.bool"
                raise InputError("row-mask", f"got {got}", where=f"kept.{name}", fits=fits)
        pairs: list[tuple[str, Signal]] = []
        present: dict[str, Tensor] = {}
        for part in self.parts:
            device, signal = _device(part.signal), part.signal
            real = torch.tensor(part.real(dropped=False), device=device)
            if part.null is not None and part.name in kept:
                mask = kept[part.name].to(device)
                signal = select_rows(mask, signal, part.null)
                real = torch.where(mask, real, torch.tensor(part.real(dropped=True), device=device))
            pairs.append((part.slot, signal))
            present[part.slot] = present[part.slot] | real if part.slot in present else real
        return SlotSignals(self._joined(pairs), present)

    def _rows(self, name: str) -> int:
        return next(rows_of(part.signal) for part in self.parts if part.name == name)

    def _joined(self, pairs: Sequence[tuple[str, Signal]]) -> dict[str, Signal]:
        by_slot: dict[str, list[Signal]] = {}
        for slot, signal in pairs:
            by_slot.setdefault(slot, []).append(signal)
        return {slot: join(signals, self.slots[slot].join) for slot, signals in by_slot.items()}


def with_makers(error: InputError, parts: Sequence[Encoded]) -> InputError:
    """An error whose `where` is a slot, with the conditioners that fill the slot; any other error as it is."""
    makers = [repr(part.conditioner or part.name) for part in parts if part.slot == error.where]
    if not makers:
        return error
    where = f"{error.where}, filled by conditioner {' and '.join(makers)}"
    return InputError(error.code.partition(".")[2], error.what, where=where, fits=error.fits)


def join(signals: Sequence[Signal], rule: Join) -> Signal:
    """The signals of one slot combined by the slot's join rule."""
    first = signals[0]
    if len(signals) == 1:
        return first
    if isinstance(first, Tokens):
        return _join_tokens([s for s in signals if isinstance(s, Tokens)], rule)
    if isinstance(first, Residuals):
        columns = zip(*(s.values for s in signals if isinstance(s, Residuals)), strict=True)
        return Residuals(tuple(torch.stack(column).sum(0) for column in columns))
    values = [s.value for s in signals if isinstance(s, (Vector, Plane))]
    if rule == "feature":
        return type(first)(torch.cat(values, dim=1))
    return type(first)(torch.stack(values).sum(0))


def _join_tokens(tokens: Sequence[Tokens], rule: Join) -> Tokens:
    masked = any(t.mask is not None for t in tokens)
    if rule == "length":
        mask = torch.cat([full_mask(t) for t in tokens], dim=1) if masked else None
        return Tokens(torch.cat([t.value for t in tokens], dim=1), mask)
    lengths = {int(t.value.shape[1]) for t in tokens}
    if len(lengths) > 1:
        raise CompositionError("token-lengths", f"a {rule} join needs equal lengths, got {sorted(lengths)}")
    mask = torch.stack([full_mask(t) for t in tokens]).all(0) if masked else None
    values = [t.value for t in tokens]
    value = torch.cat(values, dim=2) if rule == "feature" else torch.stack(values).sum(0)
    return Tokens(value, mask)


def check_signal(name: str, signal: Signal, slot: Slot, rows: int, dim: int) -> None:
    """Check the signal that a conditioner returned against its declaration.

    Raises:
        CompositionError: wrong kind, number of rows or feature dim.
    """
    fits = f"{slot.kind}, {rows} rows, dim {dim}"
    if type(signal) not in KIND_OF:
        raise CompositionError("wrong-signal", f"conditioner {name!r} returned {type(signal).__name__}", fits=fits)
    if not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors_of(signal)):
        got = ", ".join(str(getattr(t, "dtype", type(t).__name__)) for t in tensors_of(signal))
        raise CompositionError("wrong-signal", f"conditioner {name!r} returned {kind_of(signal)} of {got}", fits=fits)
    kind, axes = kind_of(signal), AXES[kind_of(signal)]
    shapes = [tuple(tensor.shape) for tensor in tensors_of(signal)]
    if any(len(shape) != axes for shape in shapes):
        what = f"conditioner {name!r} returned {kind} of shape {', '.join(map(str, shapes))}"
        raise CompositionError("wrong-signal", what, fits=f"{fits}: {axes} axes")
    if kind != slot.kind or rows_of(signal) != rows or dim_of(signal) != dim:
        got = f"{kind} with {rows_of(signal)} rows and dim {dim_of(signal)}"
        raise CompositionError("wrong-signal", f"conditioner {name!r} returned {got}", fits=fits)
    if isinstance(signal, Tokens) and signal.mask is not None:
        mask, wanted = signal.mask, tuple(signal.value.shape[:2])
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != wanted:
            got = f"{tuple(mask.shape)} of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
            what = f"conditioner {name!r} returned tokens with a mask {got}"
            raise CompositionError("wrong-signal", what, fits=f"a mask {wanted} of bools, or None")


def _views(views: Sequence[View]) -> list[View]:
    given = list_of(views, "views", "views-type", "a list of sets of names")
    if not given:
        raise InputError("no-views", "the list of views is empty", where="views", fits="one view or more")
    return given


def _draws(numbers: object, rows: int, name: str) -> Tensor:
    where = f"uniform({name!r})"
    dense = numbers_of(numbers, where) if isinstance(numbers, Tensor) else None
    if dense is None or tuple(dense.shape) != (rows,):
        got = shown(numbers) if dense is None else f"shape {tuple(dense.shape)}"
        raise InputError("draws", f"got {got}", where=where, fits=f"a tensor ({rows},) of floats")
    return dense


def _unknown(name: object, names: Sequence[str]) -> CompositionError:
    return CompositionError("unknown-condition", f"no condition {shown(name)}", fits=suggest(name, names))


def _signal_in(part: Encoded, view: View) -> Signal:
    return part.signal if part.null is None or part.name not in view else part.null


def _device(signal: Signal) -> torch.device:
    return signal.values[0].device if isinstance(signal, Residuals) else signal.value.device
