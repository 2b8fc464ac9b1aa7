"""What a denoiser and its adapters read of the conditions: prepared once, for sampling, training and the kit alike."""

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
) -> Context:
    """`denoiser.prepare(signals)`, then what each adapter prepares from it, then `denoiser.adapted`.

    Gradients are the caller's to switch off.

    Args:
        signals: by slot; an adapter's own slots are `<name>.<slot>`.
        present: slot -> (B,) bool, the rows that carry a real condition rather than a null.
        run: its noise levels and latent size; None in training, where every row has a noise level of its own.

    Raises:
        RunError: `bad-return`: the denoiser's `prepare` returned something other than an `ldmkit.Context`.
    """
    context = denoiser.prepare(signals)
    if not isinstance(context, Context):
        what = f"{part_name('denoiser', denoiser)} breaks its contract: prepare returned {type(context).__name__}"
        raise RunError("bad-return", what, fits="an ldmkit.Context")
    context.signals, context.present, context.run = signals, present, run
    for name, adapter in adapters.items():
        context.adapters[name] = adapter.prepare(context, name)
    return denoiser.adapted(context) if adapters else context
