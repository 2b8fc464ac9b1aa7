"""Preparation of the context that a denoiser and its adapters read, shared by sampling, training and the kit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.signals import Signal
from ldmkit.contracts.step import Context, Run
from ldmkit.errors import RunError
from ldmkit.run.guards import part_name


def prepared_context(
    denoiser: Denoiser,
    adapters: Mapping[str, Adapter],
    signals: Mapping[str, Signal],
    present: Mapping[str, Tensor],
    run: Run | None,
    given: Mapping[str, Tensor] | None = None,
) -> Context:
    """Call `denoiser.prepare`, then `prepare` of each adapter, then `denoiser.adapted`.

    The caller decides whether gradients are enabled.

    Args:
        signals: by slot; an adapter's own slots are `<name>.<slot>`.
        present: slot -> (B,) bool, True in rows with a real condition rather than a null.
        given: slot -> (B,) bool, True in rows whose input was given, dropped or not; None: not known.
        run: noise levels and latent size; None in training, where every row has its own noise level.

    Raises:
        RunError: `bad-return`: the denoiser's `prepare` did not return an `ldmkit.Context`.
    """
    context = denoiser.prepare(signals)
    if not isinstance(context, Context):
        what = f"{part_name('denoiser', denoiser)} breaks its contract: prepare returned {type(context).__name__}"
        raise RunError("bad-return", what, fits="an ldmkit.Context")
    context.signals, context.present, context.run, context.given = signals, present, run, given or {}
    for name, adapter in adapters.items():
        context.adapters[name] = adapter.prepare(context, name)
    return denoiser.adapted(context) if adapters else context
