"""The function `denoise(x, sigma) -> x0` that samplers call, built from network, process, conditions, guidance and
adapters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self, TypeAlias

import torch
from torch import Tensor

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.arguments import names_of
from ldmkit.contracts.denoised import Denoised, Need
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.guidance import Guidance, Perturbed, View
from ldmkit.contracts.ports import SHORTENED
from ldmkit.contracts.process import Process
from ldmkit.contracts.step import Context, Evaluations, Network, Run
from ldmkit.errors import InputError, RunError
from ldmkit.run.conditioning import Conditioning, with_makers
from ldmkit.run.context import prepared_context
from ldmkit.run.guards import check_returned, part_name
from ldmkit.run.perturbed import PerturbedNetwork

Level: TypeAlias = tuple[float, float, float, Tensor, float]
"""(skip, out, scale, time, time on the host) of a noise level; the network's time input is a float32 scalar on its
device."""


EVERYTHING: View = frozenset()
"""The view that drops nothing."""


class Rows(NamedTuple):
    """The estimates of a batch of views, one tensor per view: x0, and the learned variance if there is one."""

    x0: list[Tensor]
    variance: list[Tensor | None] | None = None


class _Batch(NamedTuple):
    """Which rows the network is called with for some views, looked up in every step.

    Args:
        views: how many differ.
        places: of each view among these; None: they are these, in this order.
        context: of the batch, of this run.
    """

    views: int
    places: tuple[int, ...] | None
    context: Context


class Guided:
    """`denoise` of a run: the evaluator's views combined by guidance, without gradients."""

    def __init__(self, evaluate: Evaluator, guidance: Guidance) -> None:
        self.evaluate = evaluate
        self.guidance = guidance

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided x0 estimate for x = x0 + sigma * n, float32 (B, C, ...)."""
        with torch.no_grad():  # half of what it costs as a decorator
            return self.guided(self.evaluate, x, sigma)

    @torch.no_grad()
    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        """The guided x0 with further estimates; needed views that guidance does not use are added to the batch.

        A field is None if it was not evaluated, and `variance` also if the network did not learn one.
        """
        noted = _Noted(self.evaluate, needs)
        parts = self.guidance.split(noted, x, sigma) if "gradient" in needs else None
        if parts is None:
            return Denoised(self.guided(noted, x, sigma), noted.unconditional, noted.variance)
        x0, gradient = (check_returned(part, (x.shape,), "guidance", self.guidance, "split") for part in parts)
        return Denoised(x0, noted.unconditional, noted.variance, gradient)

    def started(self) -> Self:
        """A copy for one run, with fresh state."""
        other = copy.copy(self)
        other.evaluate = self.evaluate.started()
        return other

    def guided(self, evaluate: Evaluator | _Noted, x: Tensor, sigma: float) -> Tensor:
        """The result of guidance for an evaluator's views.

        Raises:
            RunError: `bad-return`.
        """
        counted = not x.is_inference()
        before = x._version if counted else 0
        made = check_returned(self.guidance(evaluate, x, sigma), (x.shape,), "guidance", self.guidance)
        if counted and x._version != before:
            who = part_name("guidance", self.guidance)
            what = f"{who} breaks its contract: it modified its input x in place"
            raise RunError("bad-return", what, fits="a new tensor")
        return made


class Evaluator:
    """The `evaluate` argument of guidance; built once per run, caches the prepared contexts.

    Args:
        conditioning: encoded conditions of the batch, on the denoiser's device and in its dtype.
        decode: latents -> pictures, for guidance through the decoder.
        network: called instead of the denoiser if given (an execution plan).
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
        self.absent = conditioning.absent
        self._denoiser = denoiser
        self._network: Network = network or denoiser
        self._conditioning = conditioning
        self._run = run
        self._adapters = dict(adapters or {})
        self._decode = decode
        self._dtype, self._device = denoiser.dtype, denoiser.device
        self.memory: dict[Any, Any] = {}
        self._others: dict[Perturbed, Evaluator] = {}
        self._contexts: dict[tuple[View, ...], Context] = {}
        self._own: dict[tuple[View, ...], Context] = {}
        self._batches: dict[tuple[View | Perturbed, ...], _Batch] = {}
        self.taken = Evaluations()
        self._levels = self._tabulated([s for s in run.sigmas if s > 0])

    def __call__(self, x: Tensor, sigma: float, *views: View | Perturbed) -> list[Tensor]:
        """x0 estimates for several views of the conditioning, from one batch of the network.

        Views that differ only in absent conditions are evaluated once.
        """
        return self.rows(x, sigma, *views).x0

    def rows(self, x: Tensor, sigma: float, *views: View | Perturbed) -> Rows:
        """Like `__call__`, with the learned variance of a network that has 2 C output channels."""
        try:
            batch = self._batches.get(views)
        except TypeError:  # a list or a set of names
            batch = None
        if batch is None:
            if any(isinstance(view, Perturbed) for view in views):
                return self._grouped(x, sigma, views)
            batch = self._batch(views)
        count, places, context = batch
        level = self._levels.get(sigma)
        if level is None:  # a noise level between those of the run, which some samplers visit
            # filled on the device, because a transfer from the host would synchronise
            between = self.process.time_between(sigma)
            time = torch.full((), between, dtype=torch.float32, device=self._device)
            level = self._levels[sigma] = (*self.process.scalings(sigma), time, between)
        skip, out, scale, time, context.time = level
        rows = x.shape[0]
        scaled = (x * scale).to(self._dtype)
        if count > 1:
            scaled = torch.cat([scaled] * count)
        # the expanded scalar lets a plan know, without reading values, that all rows have the same time
        try:
            raw = self._network(scaled, time.expand(count * rows), context, sigma)
        except InputError as error:
            raise with_makers(error, self._conditioning.parts) from error
        self.taken.made += 1
        if context.memory:
            self.taken.shortened += bool(context.memory.pop(SHORTENED, 0))
        learned = None
        if not isinstance(raw, Tensor) or raw.shape != scaled.shape or not raw.is_floating_point():
            wide = (scaled.shape[0], 2 * scaled.shape[1], *scaled.shape[2:])
            check_returned(raw, (scaled.shape, wide), "denoiser", self._denoiser, "forward")
            raw, learned = raw[:, : x.shape[1]], raw[:, x.shape[1] :]
        kept = x if skip == 1 else x * skip
        raw = raw if raw.dtype == x.dtype else raw.to(x.dtype)
        if count == 1:
            estimates = [torch.add(kept, raw, alpha=out)]
        else:
            estimates = list(torch.add(kept, raw.reshape(count, *x.shape), alpha=out).unbind(0))
        found = estimates if places is None else [estimates[place] for place in places]
        if learned is None:
            return Rows(found)
        shares = learned.to(x.dtype).add(1).mul_(0.5).reshape(count, *x.shape).unbind(0)
        return Rows(found, [shares[place] for place in places or range(count)])

    def _batch(self, views: Sequence[View | Perturbed]) -> _Batch:
        """What the network is called with for plain views; kept where they are spelled as views are."""
        plain = [view if type(view) is frozenset else names_of(view, f"views[{i}]") for i, view in enumerate(views)]
        seen = [view - self.absent for view in plain]
        distinct = tuple(dict.fromkeys(seen))
        places = tuple(distinct.index(view) for view in seen)
        batch = _Batch(len(distinct), None if seen == list(distinct) else places, self.context(distinct))
        if all(type(view) is frozenset for view in views):
            self._batches[tuple(views)] = batch
        return batch

    def _grouped(self, x: Tensor, sigma: float, views: Sequence[View | Perturbed]) -> Rows:
        """Plain views in one batch, and those of each perturbed network in another."""
        groups: dict[Perturbed | None, list[View | Perturbed]] = {}
        for view in dict.fromkeys(views):
            groups.setdefault(replace(view, drop=EVERYTHING) if isinstance(view, Perturbed) else None, []).append(view)
        x0: dict[View | Perturbed, Tensor] = {}
        variance: dict[View | Perturbed, Tensor] = {}
        for disturbance, group in groups.items():
            evaluate = self if disturbance is None else self._perturbed(disturbance)
            found = evaluate.rows(x, sigma, *(v.drop if isinstance(v, Perturbed) else v for v in group))
            x0 |= zip(group, found.x0, strict=True)
            if disturbance is None and found.variance is not None:
                variance |= {view: one for view, one in zip(group, found.variance, strict=True) if one is not None}
        return Rows([x0[view] for view in views], [variance.get(view) for view in views] if variance else None)

    def _perturbed(self, disturbance: Perturbed) -> Evaluator:
        """The evaluator of a perturbed network, built at its first use in a run and cached."""
        if disturbance not in self._others:
            network, own = disturbance.denoiser or self._denoiser, disturbance.denoiser is None
            call: Network = network
            if disturbance.taps:
                call = perturbed = PerturbedNetwork(network, dict(disturbance.taps))
                network = perturbed.denoiser
            self._others[disturbance] = Evaluator(
                network, disturbance.process or self.process, self._conditioning, self._run,
                adapters=self._adapters if own else None, decode=self._decode, network=call,
            )  # fmt: skip
        return self._others[disturbance]

    def started(self) -> Self:
        """A copy for one run, with empty memory, also for taps; prepared contexts are shared."""
        other = copy.copy(self)
        other.memory, other._own, other.taken, other._others, other._batches = {}, {}, Evaluations(), {}, {}
        return other

    @property
    def run(self) -> Run:
        """The noise levels and latent size of the run."""
        return self._run

    @property
    def ports(self) -> Collection[str]:
        """Names of the network's ports."""
        return self._denoiser.ports.keys()

    @property
    def denoiser(self) -> Denoiser:
        """The model's network."""
        return self._denoiser

    def at_levels(self, sigmas: tuple[float, ...]) -> Evaluator:
        """An evaluator with the same conditions for a run with other noise levels."""
        return Evaluator(
            self._denoiser, self.process, self._conditioning, self._run._replace(sigmas=sigmas),
            adapters=self._adapters, decode=self._decode, network=self._network,
        )  # fmt: skip

    def _tabulated(self, sigmas: Sequence[float]) -> dict[float, Level]:
        """The scalings and time of each noise level; the times are moved to the device in one transfer."""
        known = [self.process.time(s) for s in sigmas]
        times = torch.tensor(known, dtype=torch.float32, device=self._device).unbind()
        made = zip(sigmas, times, known, strict=True)
        return {s: (*self.process.scalings(s), time, host) for s, time, host in made}

    @property
    def made_for(self) -> tuple[torch.device, torch.dtype]:
        """Device and dtype of the network when the run was prepared."""
        return self._device, self._dtype

    @property
    def dropped(self) -> bool:
        """Whether any condition has been replaced by its null so far."""
        return any(view for views in self._contexts for view in views)

    def context(self, views: tuple[View, ...]) -> Context:
        """The context of a batch of views, with this run's memory; prepared at first use and shared by all runs."""
        if views not in self._contexts:
            signals, present = self._conditioning.batch(views)
            given = self._conditioning.given(len(views))
            with torch.no_grad():
                context = prepared_context(self._denoiser, self._adapters, signals, present, self._run, given)
            self._contexts[views] = context
        if views not in self._own:
            self._own[views] = own = copy.copy(self._contexts[views])
            own.memory = {}
        return self._own[views]

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in about [-1,1] decoded from latents; differentiable."""
        if self._decode is None:
            raise RuntimeError("this run has no decoder")
        return self._decode(latents)


class _Noted:
    """`evaluate` for one call of guidance, which records further estimates that the sampler needs.

    Everything else is delegated to the evaluator.
    """

    def __init__(self, evaluate: Evaluator, needs: Sequence[Need]) -> None:
        self._evaluate, self._without = evaluate, frozenset(evaluate.names)
        needed = {"unconditional": self._without, "variance": EVERYTHING}
        self._needed = [needed[need] for need in needs if need in needed]
        self.unconditional: Tensor | None = None
        self.variance: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluate, name)

    def __call__(self, x: Tensor, sigma: float, *views: View | Perturbed) -> list[Tensor]:
        more = [view for view in dict.fromkeys(self._needed) if view not in views]
        asked = (*views, *more)
        found = self._evaluate.rows(x, sigma, *asked)
        if self._without in asked and self.unconditional is None:
            self.unconditional = found.x0[asked.index(self._without)].detach()
        if found.variance is not None and EVERYTHING in asked and self.variance is None:
            share = found.variance[asked.index(EVERYTHING)]
            self.variance = None if share is None else share.detach()
        self._needed = []
        return found.x0[: len(views)]
