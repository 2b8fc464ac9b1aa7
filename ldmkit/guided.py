"""The one `denoise(x, sigma) -> x0` that every sampler sees: network, process, conditions, guidance, adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ldmkit.conditioning import Conditioning
from ldmkit.contracts import Adapter, Context, Denoiser, Guidance, Process, Run, View
from ldmkit.plans import Network


class Guided:
    """`denoise` of one run: the evaluator's views, combined by guidance, without gradients."""

    def __init__(self, evaluate: Evaluator, guidance: Guidance) -> None:
        self.evaluate = evaluate
        self.guidance = guidance

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided x0 estimate for x = x0 + sigma * n, float32 (B, C, ...)."""
        return self.guidance(self.evaluate, x, sigma)


class Evaluator:
    """What guidance receives as `evaluate`; built once a run, keeps the prepared contexts.

    Args:
        conditioning: encoded conditions of the batch, on the denoiser's device, in its dtype.
        decode: latents -> pictures, for guidance through the decoder.
        network: called in place of the denoiser where given (a compiled or packed plan of it).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        process: Process,
        conditioning: Conditioning,
        run: Run,
        *,
        adapters: Mapping[str, Adapter] | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
        network: Network | None = None,
    ) -> None:
        self.process = process
        self.names = conditioning.names
        self._denoiser = denoiser
        self._network: Network = network or denoiser
        self._conditioning = conditioning
        self._run = run
        self._adapters = dict(adapters or {})
        self._decode = decode
        self._dtype, self._device = denoiser.dtype, denoiser.device
        self._contexts: dict[tuple[View, ...], Context] = {}
        self._scalings: dict[float, tuple[float, float, float, float]] = {}

    def __call__(self, x: Tensor, sigma: float, *views: View) -> list[Tensor]:
        """x0 estimates of several views of the conditioning, from one batch of the network."""
        if sigma not in self._scalings:
            self._scalings[sigma] = (*self.process.scalings(sigma), self.process.time(sigma))
        skip, out, scale, time = self._scalings[sigma]
        count, rows = len(views), x.shape[0]
        scaled = (x * scale).to(self._dtype)
        if count > 1:
            scaled = scaled.repeat(count, *[1] * (x.ndim - 1))
        t = torch.full((count * rows,), time, dtype=torch.float32, device=self._device)
        raw = self._network(scaled, t, self.context(views), sigma)[:, : x.shape[1]]
        if count == 1:
            return [torch.add(x * skip, raw.to(x.dtype), alpha=out)]
        stacked = raw.to(x.dtype).view(count, *x.shape)
        return list(torch.add((x * skip).unsqueeze(0), stacked, alpha=out).unbind(0))

    def context(self, views: tuple[View, ...]) -> Context:
        """The prepared context of a batch of views; prepared at its first use in a run, then kept."""
        if views not in self._contexts:
            signals, present = self._conditioning.batch(views)
            with torch.no_grad():
                context = self._denoiser.prepare(signals)
                context.signals, context.present, context.run = signals, present, self._run
                for name, adapter in self._adapters.items():
                    context.adapters[name] = adapter.prepare(context, name)
            self._contexts[views] = context
        return self._contexts[views]

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in about [-1,1] of latents; differentiable."""
        if self._decode is None:
            raise RuntimeError("this run has no decoder")
        return self._decode(latents)
