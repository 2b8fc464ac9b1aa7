"""Measures the rate at which conditions are dropped, by counting at the call of the denoiser.

Every part of the conditioning is marked (its signal by zeros, its null by its own power of two) and the turn runs up to
the call of the denoiser. The marks in the context of that call show, row by row, what was dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ldmkit import Batch, Conditioning, Denoiser, Pipeline, Residuals, Signal, Stage, Tokens
from ldmkit.contracts.signals import tensors_of
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.latents import latent_sides
from ldmkit_training.stages.pipeline import denoising_turn

ROWS = 2048
"""Number of rows to count."""
DEVIATIONS = 4.5
"""Tolerance in standard deviations of a binomial count: a correct rate fails once in 150,000 times."""
MARKS = 20
"""Maximum number of parts: sums of marks up to 2^20 are exact in float32."""


class _DenoiserCalled(Exception):
    """The turn has reached the denoiser."""


def check_dropout(stage: Stage, batch: Batch) -> list[tuple[str, bool, str, str]]:
    """(name, passed, found, wanted) for each input that may be dropped; empty for a stage without conditions."""
    if (turn := denoising_turn(stage)) is None:
        return []
    counts, rows = count_dropped(turn, batch)
    expected = turn.drop_rates
    checks = []
    for name, count in counts.items():
        rate = expected[name]
        bound = DEVIATIONS * math.sqrt(max(rate * (1 - rate), 0) / rows)
        found = f"{count / rows:.4f} of {rows} rows"
        checks.append(
            (f"dropout: {name}", abs(count / rows - rate) <= bound + 1e-9, found, f"{rate:.4f} +- {bound:.4f}")
        )
    return checks


def count_dropped(turn: DenoiserTurn, batch: Batch) -> tuple[dict[str, int], int]:
    """Number of rows that drop each input, over as many steps as `ROWS` rows take, and the number of rows counted."""
    batch = _with_zero_latents(turn.pipeline, batch)
    with torch.no_grad():
        encoded = turn.conditioning(batch)
    if not encoded.names:
        return {}, 0
    marked, bits = _marked(encoded)
    counts, rows, step = dict.fromkeys(encoded.names, 0), 0, 0
    with turn.encoding_by(lambda _: marked), _recorded_calls(turn.pipeline.denoiser) as arrived:
        while rows < ROWS:
            draws = type(batch.draws)(batch.draws.seed, 1_000_000 + step, batch.draws.rows)
            try:
                turn(replace(batch, draws=draws), step)
            except _DenoiserCalled:
                pass
            else:
                raise RuntimeError("the turn never called the denoiser")
            seen = _dropped_bits(arrived.pop(), len(batch.ids))
            for name in counts:
                own = torch.stack([(seen >> bit) & 1 for bit, owner in bits.items() if owner == name])
                if not bool((own == own[0]).all()):
                    raise RuntimeError(f"parts of the input {name!r} are dropped in different rows")
                counts[name] += int(own[0].sum())
            rows, step = rows + len(batch.ids), step + 1
    return counts, rows


def _with_zero_latents(pipeline: Pipeline, batch: Batch) -> Batch:
    """The batch with zero latents: the draws do not depend on them."""
    shape = (len(batch.ids), pipeline.codec.channels, *latent_sides(pipeline.codec, batch.size))
    zeros = torch.zeros(shape, device=pipeline.device)
    return replace(batch, images=None, latents=zeros, deviation=None)


def _marked(encoded: Conditioning) -> tuple[Conditioning, dict[int, str]]:
    """The conditioning with marks as values, and the bit of each part."""
    parts, bits = [], {}
    for bit, part in enumerate(encoded.parts[:MARKS]):
        null = None if part.null is None else _filled(part.null, float(2**bit))
        if null is not None:
            bits[bit] = part.name
        parts.append(part._replace(signal=_filled(part.signal, 0.0), null=null))
    return Conditioning(tuple(parts), encoded.slots), bits


def _filled(signal: Signal, value: float) -> Signal:
    if isinstance(signal, Residuals):
        return Residuals(tuple(torch.full_like(v, value, dtype=torch.float32) for v in signal.values))
    filled = torch.full_like(signal.value, value, dtype=torch.float32)
    return Tokens(filled, None) if isinstance(signal, Tokens) else type(signal)(filled)


def _dropped_bits(signals: Mapping[str, Signal], rows: int) -> Tensor:
    """(B,) int64: all marks found in a row, over all slots."""
    found = torch.zeros(rows, dtype=torch.int64)
    for signal in signals.values():
        for tensor in tensors_of(signal):
            for row, values in enumerate(tensor.detach().float().cpu().flatten(1)):
                for value in values.unique().tolist():
                    if value != int(value) or not 0 <= value < 2**MARKS:
                        raise RuntimeError("the turn does not take the batch's conditions from conditioning()")
                    found[row] |= int(value)
    return found


@contextmanager
def _recorded_calls(denoiser: Denoiser) -> Iterator[list[Mapping[str, Signal]]]:
    """Records the signals of a call of the denoiser, and ends the call before anything is computed."""
    arrived: list[Mapping[str, Signal]] = []

    def look(_: Any, given: tuple[Any, ...]) -> None:
        arrived.append(given[2].signals)
        raise _DenoiserCalled

    handle = denoiser.register_forward_pre_hook(look)
    try:
        yield arrived
    finally:
        handle.remove()
