"""From the caller's inputs to `Conditioning`: parsing, encoding, filling in nulls, and checks of the signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.axes import frame_size
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.conditioner_abilities import HasDefault, Ported, Proposing, UsesCodec
from ldmkit.contracts.part import Part
from ldmkit.contracts.signals import Residuals, Signal, Slot, Tokens, rows_of, select_rows, tensors_of, to, zeros_like
from ldmkit.contracts.step import Context, Frame
from ldmkit.errors import InputError, shown, suggest
from ldmkit.models.abilities import able, encode_on
from ldmkit.models.compose import Parts
from ldmkit.models.memory import memory
from ldmkit.models.residence import in_use
from ldmkit.models.routing import input_name as input_name
from ldmkit.models.routing import input_owners as input_owners
from ldmkit.models.spec import ConditionerSpec
from ldmkit.run.conditioning import Conditioning, Encoded, check_signal
from ldmkit.run.encodings import Encodings
from ldmkit.run.guards import finite, parsed_by
from ldmkit.run.sizes import Size, latent_size

Row = Mapping[str, Any]


def parse_rows(parts: Parts, wiring: Mapping[str, ConditionerSpec], rows: Sequence[Row], where: str) -> list[Row]:
    """Validate every raw input against its conditioner's type.

    Raises:
        InputError: unknown names (with a suggestion), or invalid values (with their path).
    """
    owners = input_owners(parts.conditioners, wiring)
    parsed: list[Row] = []
    done: dict[int, Row] = {}
    for i, row in enumerate(rows):
        if id(row) not in done:
            place = where if len(rows) == 1 else f"{where}[{i}]"
            for key in row:
                if key not in owners:
                    raise InputError(
                        "unknown-input", f"unknown input {shown(key)}", where=place, fits=suggest(key, owners)
                    )
            done[id(row)] = {key: _parsed(owners[key], value, f"{place}.{key}") for key, value in row.items()}
        parsed.append(done[id(row)])
    return parsed


def _parsed(conditioner: Conditioner, value: Any, where: str) -> Any:
    return parsed_by(conditioner, lambda: type(conditioner).__name__, value, where)


def parse_negatives(parts: Parts, wiring: Mapping[str, ConditionerSpec], given: Sequence[Row], rows: int) -> list[Row]:
    """Negative inputs, validated as by `parse_rows`, one mapping per row; a shared mapping is parsed once.

    Raises:
        InputError: as `parse_rows`; `batch-mismatch`.
    """
    if all(row is given[0] for row in given):
        return parse_rows(parts, wiring, given[:1], "negative") * rows
    if len(given) != rows:
        what = f"{len(given)} negatives for {rows} inputs"
        raise InputError("batch-mismatch", what, where="negative", fits="one mapping, or one for each input")
    return parse_rows(parts, wiring, given, "negative")


def proposals(
    parts: Parts,
    wiring: Mapping[str, ConditionerSpec],
    rows: Sequence[Row],
    seeds: Sequence[int],
    size: Size,
) -> list[Row]:
    """Inputs proposed by conditioners for those that parsed rows lack: one mapping per row, drawn with its seed.

    If several conditioners read an input, the first in spec order that proposes a value is used.
    """
    found: list[Row] = []
    for row, seed in zip(rows, seeds, strict=True):
        made: dict[str, Any] = {}
        for name, spec in wiring.items():
            key = input_name(name, spec)
            if key in row or key in made:
                continue
            if (proposing := able(parts.conditioners[name], Proposing)) is None:
                continue
            with memory(f"conditioner {name!r}", "a proposal"), in_use(_used(parts, name)), torch.no_grad():
                value = proposing.propose(row, frame_size(size), seed)
            if value is not None:
                made[key] = value
        found.append(made)
    return found


def encode_conditions(
    parts: Parts,
    wiring: Mapping[str, ConditionerSpec],
    rows: Sequence[Row],
    negatives: Sequence[Row],
    size: Size,
    *,
    grad: bool = False,
    known: Encodings | None = None,
) -> Conditioning:
    """Every conditioner's signal and null for a batch of parsed rows, on the denoiser's device and in its dtype.

    The size passed to conditioners is (height, width) of pictures and video frames, and (1, 1) for vectors.

    `negatives` are parsed as well, one mapping per row; a row's negative replaces the null.
    With `grad`, gradients reach the conditioners, for training them together with the denoiser.
    Conditions found in `known` are not encoded again.
    """
    for negative in negatives:
        _check_negative(parts, wiring, negative)
    encoded: list[Encoded] = []
    tapping = {name: adapter for name, adapter in parts.adapters.items() if adapter.conditioner_taps(name)}
    grid, size = frame_size(latent_size(size, parts.codec)), frame_size(size)
    for name, bare in parts.conditioners.items():
        conditioner = _framed(bare, tapping) if known is None else known.remembering(_framed(bare, tapping))
        spec, slot = with_adapter_drops(wiring[name], parts.routes[name], parts), parts.routes[name]
        key = input_name(name, spec)
        values = [_value(conditioner, row, key, size) for row in rows]
        given = tuple(value is not None for value in values)
        opposite = [negative.get(key) for negative in negatives]
        if slot not in parts.denoiser.slots:
            _check_not_alone(key, values, opposite)
            if all(value is None for value in values):
                continue  # an adapter without input is not used; a denoiser's slot gets its trained null
        stage = memory(f"conditioner {name!r}", f"{len(rows)} inputs")
        with stage, in_use(_used(parts, name)), torch.set_grad_enabled(grad):
            signal, null = _encode(name, conditioner, spec, parts.slots[slot], values, opposite, size, grid)
        same = null is not None and not any(given) and all(value is None for value in opposite)
        opposed = tuple(value is not None for value in opposite)
        encoded.append(Encoded(key, slot, signal, null, given, same, name, opposed))
    device, dtype = parts.denoiser.device, parts.denoiser.dtype
    moved = [
        e._replace(signal=to(e.signal, device, dtype), null=None if e.null is None else to(e.null, device, dtype))
        for e in encoded
    ]
    return Conditioning(tuple(moved), parts.slots)


def _used(parts: Parts, name: str) -> list[Part]:
    """The parts that a conditioner computes with: itself, and the codec if it uses one."""
    conditioner = parts.conditioners[name]
    return [conditioner] if able(conditioner, UsesCodec) is None else [conditioner, parts.codec]


def _framed(conditioner: Conditioner, tapping: Mapping[str, Adapter]) -> Conditioner:
    """The conditioner for an encoding with adapters' taps; unchanged if there are none."""
    if not tapping or (ported := able(conditioner, Ported)) is None:
        return conditioner
    nothing = torch.empty(0, device=conditioner.device)  # x and time do not exist yet
    return ported.framed(Frame(nothing, nothing, Context({}, adapters=dict(tapping))))


def with_adapter_drops(spec: ConditionerSpec, slot: str, parts: Parts) -> ConditionerSpec:
    """The spec, with `null: keep` overridden if the slot's adapter drops it (`Adapter.drops`)."""
    owner, _, own = slot.rpartition(".")
    dropped = spec.null == "keep" and owner in parts.adapters and parts.adapters[owner].drops(own)
    return spec.model_copy(update={"null": "default"}) if dropped else spec


def _check_negative(parts: Parts, wiring: Mapping[str, ConditionerSpec], negative: Row) -> None:
    for key in negative:
        readers = [name for name, spec in wiring.items() if input_name(name, spec) == key]
        if all(wiring[name].null == "keep" and not _replaceable(parts.routes[name], parts) for name in readers):
            what = f"the input {key!r} is never dropped, so it cannot have a negative"
            raise InputError("negative-kept", what, where=f"negative.{key}")


def _check_not_alone(key: str, values: Sequence[Any | None], negatives: Sequence[Any | None]) -> None:
    """Refuse negatives of an adapter's input in rows without it, in which the adapter does nothing."""
    for row, (value, negative) in enumerate(zip(values, negatives, strict=True)):
        if value is None and negative is not None:
            what = f"there is a negative for {key!r}, which is not given: the adapter is not used then"
            raise InputError("negative-alone", what, where=f"negative[{row}].{key}", fits=f"{key!r} as well")


def _replaceable(slot: str, parts: Parts) -> bool:
    """Whether a slot is an adapter's, and a negative can take the place of its null."""
    owner, _, own = slot.rpartition(".")
    adapter = parts.adapters.get(owner)
    return adapter is not None and adapter.drops(own) and adapter.has_null(own)


def _value(conditioner: Conditioner, row: Row, key: str, size: tuple[int, int]) -> Any | None:
    if key in row:
        return row[key]
    defaulting = able(conditioner, HasDefault)
    return None if defaulting is None else defaulting.default(size)


def _encode(
    name: str,
    conditioner: Conditioner,
    spec: ConditionerSpec,
    slot: Slot,
    values: Sequence[Any | None],
    negatives: Sequence[Any | None],
    size: tuple[int, int],
    grid: tuple[int, int],
) -> tuple[Signal, Signal | None]:
    """(signal, null) of one conditioner; `signal` contains the null in rows without a value."""
    key = input_name(name, spec)
    absent = [value is None for value in values]
    stand_in = _stand_in(conditioner, key, values, size)
    filled = [stand_in if value is None else value for value in values]
    signal = _forward(name, conditioner, slot, filled, grid)
    null = _null(name, conditioner, spec, slot, signal, negatives, grid)
    if any(absent):
        signal = _without(absent, signal, _empty(name, conditioner, spec, slot, signal))
    return signal, null


def _stand_in(conditioner: Conditioner, key: str, values: Sequence[Any | None], size: tuple[int, int]) -> Any:
    """An input to encode in rows that have none.

    Raises:
        InputError: `missing-condition`: the input is required.
    """
    given = next((value for value in values if value is not None), None)
    needed = not conditioner.has_null and any(value is None for value in values)
    found = conditioner.example(size) if given is None and not needed else given
    if needed or found is None:
        raise InputError("missing-condition", f"the input {key!r} is required", where="inputs")
    return found


def check_given(parts: Parts, wiring: Mapping[str, ConditionerSpec], rows: Sequence[Row], size: Size) -> None:
    """Check that parsed rows have all required inputs, before anything is encoded.

    Raises:
        InputError: `missing-condition`.
    """
    for name, conditioner in parts.conditioners.items():
        key, frame = input_name(name, wiring[name]), frame_size(size)
        values = [_value(conditioner, row, key, frame) for row in rows]
        if parts.routes[name] in parts.denoiser.slots or any(value is not None for value in values):
            _stand_in(conditioner, key, values, frame)


def _null(
    name: str,
    conditioner: Conditioner,
    spec: ConditionerSpec,
    slot: Slot,
    signal: Signal,
    negatives: Sequence[Any | None],
    grid: tuple[int, int],
) -> Signal | None:
    if spec.null == "keep":
        return None
    has_null = conditioner.has_null or spec.null == "zero"
    stand_in = next((value for value in negatives if value is not None), None)
    if stand_in is None:
        return _empty(name, conditioner, spec, slot, signal) if has_null else None
    absent = [value is None for value in negatives]
    if any(absent) and not has_null:
        what = f"the input {input_name(name, spec)!r} has no null, so every picture needs a negative for it"
        raise InputError("missing-condition", what, where=f"negative[{absent.index(True)}]")
    filled = [stand_in if value is None else value for value in negatives]
    made = _forward(name, conditioner, slot, filled, grid)
    return _without(absent, made, _empty(name, conditioner, spec, slot, made)) if any(absent) else made


def _empty(name: str, conditioner: Conditioner, spec: ConditionerSpec, slot: Slot, like: Signal) -> Signal:
    if spec.null == "zero":
        return zeros_like(like)
    empty: Signal = conditioner.null(like)
    check_signal(f"{name}.null", empty, slot, rows_of(like), conditioner.dim)
    return empty


def _without(absent: Sequence[bool], signal: Signal, empty: Signal) -> Signal:
    """A signal with the null in the rows without a value."""
    return select_rows(torch.tensor([not a for a in absent], device=tensors_of(signal)[0].device), signal, empty)


def _forward(name: str, conditioner: Conditioner, slot: Slot, values: list[Any], grid: tuple[int, int]) -> Signal:
    distinct: dict[int, int] = {}
    for value in values:
        distinct.setdefault(id(value), len(distinct))
    unique = list({id(v): v for v in values}.values())
    signal = encode_on(conditioner, unique, grid)
    check_signal(name, signal, slot, len(unique), conditioner.dim)
    for tensor in tensors_of(signal):
        finite(tensor, f"conditioner {name!r}")
    if len(unique) == len(values):
        return signal
    index = [distinct[id(value)] for value in values]
    return pick_rows(signal, index)


def pick_rows(signal: Signal, index: Sequence[int]) -> Signal:
    """Rows of a signal by index, in that order."""
    rows = torch.tensor(list(index), device=tensors_of(signal)[0].device)
    if isinstance(signal, Residuals):
        return Residuals(tuple(v.index_select(0, rows) for v in signal.values))
    if isinstance(signal, Tokens):
        mask = None if signal.mask is None else signal.mask.index_select(0, rows)
        return Tokens(signal.value.index_select(0, rows), mask)
    return type(signal)(signal.value.index_select(0, rows))
