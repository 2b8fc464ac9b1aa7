"""Inputs that every sample must have."""

from __future__ import annotations

from ldmkit import Batch, InputError


def check_given(batch: Batch, name: str) -> None:
    """Check that all samples of a batch have an input.

    Raises:
        InputError: `missing-input`; the sample is named.
    """
    for sample, inputs in zip(batch.ids, batch.inputs, strict=True):
        if name not in inputs:
            fits = f"an input {name!r} of every sample"
            raise InputError("missing-input", f"this sample has no {name!r}", where=sample, fits=fits)
