"""The effect of each condition: how much the prediction changes, and the loss rises, when it is swapped or dropped.

On held-out rows with fixed noise at a few noise levels, F is evaluated with the right conditions, with one of them
swapped for another sample's, and with its null: once together with the other conditions and once with that condition
alone (the others dropped), since a caption may be redundant beside a map that determines everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from ldmkit_drawing.charts import line_chart
from torch import Tensor

from ldmkit import Batch, Conditioning, Context, Encoded, Pipeline
from ldmkit.files.json import replacing
from ldmkit.run.inputs import pick_rows
from ldmkit_training.stages.pipeline import denoising_turn
from ldmkit_training.watch.lines import Lines
from ldmkit_training.watch.observe import EngineView, networks, undisturbed
from ldmkit_training.watch.previews import first_rows
from ldmkit_training.watch.probe_section import SILENT, ProbeSection

SURE = 3.0
"""Number of standard errors by which a loss must be worse without the right condition to count, over many rows; over
few rows, the equivalent quantile of Student's t (see `sure_at`)."""
HELPS = 0.001
"""Smallest relative decrease of the loss for which a condition counts as helping."""


class Probed(Protocol):
    """What the probe requires of the turn that trains a denoiser."""

    pipeline: Pipeline

    def latents(self, batch: Batch) -> Tensor:
        """(B,C,h,w)."""

    def conditioning(self, batch: Batch) -> Conditioning:
        """The conditions of a batch."""

    def context(self, conditioning: Conditioning, kept: Mapping[str, Tensor] | None = None) -> Context:
        """What the denoiser reads; `kept` by input name (B,) bool."""

    def predict(self, x0: Tensor, signals: Context, noise: Tensor, sigma: list[float]) -> Tensor:
        """F at one noise level a row."""


class Effect(NamedTuple):
    """The effect of replacing one condition, over rows and noise levels.

    Args:
        change: mean of |F' - F| / |F| (L2 norms of a row).
        loss: mean change of |F - target|^2, relative to the loss with the right condition: > 0 if the right condition
            helps.
        errors: distance of `loss` from 0 in standard errors, with rows assumed independent.
        rows: number of rows.
    """

    change: float
    loss: float
    errors: float
    rows: int = 10**6

    @property
    def helps(self) -> bool:
        """Whether the right condition lowers the loss, significantly and by enough to matter."""
        return self.change > 0 and self.loss >= HELPS and self.errors > sure_at(self.rows)


def sure_at(rows: int) -> float:
    """Required number of standard errors for a number of rows: the quantile of Student's t that corresponds to `SURE`
    of a normal distribution, by its expansion in 1 / (rows - 1)."""
    z, free = SURE, max(rows - 1, 1)
    return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)


@dataclass(frozen=True)
class Response:
    """The probe's results for one condition; None where it could not be tried (never dropped, nothing to swap)."""

    name: str
    swap: Effect | None
    null: Effect | None
    swap_alone: Effect | None = None
    null_alone: Effect | None = None

    @property
    def effects(self) -> dict[str, Effect]:
        """The effects that were measured, by name."""
        tried = {n: getattr(self, n) for n in ("swap", "null", "swap_alone", "null_alone")}
        return {name: effect for name, effect in tried.items() if effect is not None}

    def change(self) -> float:
        """The largest change caused by another value of this condition."""
        return max((e.change for n, e in self.effects.items() if n.startswith("swap")), default=math.nan)

    def verdict(self, silent: float = SILENT) -> str:
        """The result in words. A condition helps if the loss is significantly lower with the right value (`SURE`,
        `HELPS`); it does nothing if that is not so and no replacement moves the prediction by `silent`."""
        swaps = [e for n, e in self.effects.items() if n.startswith("swap")]
        nulls = [e for n, e in self.effects.items() if n.startswith("null")]
        if not swaps and not nulls:
            return "cannot be told: no two rows differ in it"
        if any(effect.helps for effect in swaps or nulls):
            return "helps" if self.change() >= silent or not swaps else "helps a little"
        if all(effect.change < silent for effect in self.effects.values()):
            return "does nothing yet"
        if swaps and all(effect.change < silent for effect in swaps):
            return "only its presence counts, its value does nothing yet"
        return "reacts, but does not help yet"

    def line(self, silent: float = SILENT) -> str:
        """A readable line."""
        shown = ", ".join(
            f"{name.replace('_', ' ')} {e.change:.3g} (loss {e.loss:+.1%})" for name, e in self.effects.items()
        )
        return f"{self.name}: {shown or 'nothing to compare'}: {self.verdict(silent)}"


class Probe:
    """Appends to probe.jsonl, draws probe.png, and prints the results.

    Args:
        section: of the recipe.
        batches: held-out batches with all of their conditions.
        start: completed optimiser steps; later records of an earlier process are removed.
    """

    def __init__(self, section: ProbeSection, batches: Sequence[Batch], *, start: int = 0) -> None:
        self.section, self.every, self.start = section, section.every, start
        self.rows = first_rows(batches, section.count)
        self._written = False

    def __call__(self, view: EngineView, step: int) -> None:
        """Probe after optimiser step `step`; weights, modes and generators are left unchanged."""
        if (turn := denoising_turn(view.stage)) is None:
            return
        with undisturbed(networks(view.stage)):
            found = respond(turn, self.rows, self.section)
        if view.main:
            self._write(view, step, found)
            view.say(f"probe at step {step}")
            for response in found:
                view.say("  " + response.line(self.section.silent))

    def _write(self, view: EngineView, step: int, found: Sequence[Response]) -> None:
        silent = self.section.silent
        lines = Lines(view.out / "probe.jsonl")
        lines.cut(step - 1 if self._written else min(self.start, step - 1))
        self._written = True
        conditions = {
            r.name: {"verdict": r.verdict(silent)} | {n: _rounded(e) for n, e in r.effects.items()} for r in found
        }
        lines.append({"step": step, "silent": silent, "conditions": conditions})
        figures = {
            f"probe/{r.name}/{n}{end}": value
            for r in found for n, e in r.effects.items() for end, value in (("", e.change), ("_loss", e.loss))
        }  # fmt: skip
        view.track(figures, step)
        chart = probe_chart(lines.read(), silent)
        with replacing(view.out / "probe.png") as temporary:
            chart.save(temporary, format="PNG")
        view.picture("probe", chart, step)


def respond(turn: Probed, batches: Sequence[Batch], section: ProbeSection) -> list[Response]:
    """The responses to every condition of a model, in the order of its inputs. The caller sets modes and gradients."""
    names = list(dict.fromkeys(part.name for part in turn.conditioning(batches[0]).parts))
    rows: dict[str, dict[str, list[tuple[Tensor, Tensor]]]] = {name: {} for name in names}
    rights: dict[str, dict[str, list[Tensor]]] = {name: {} for name in names}
    for batch in batches:
        _BatchProbe(turn, batch, section).run(names, rows, rights)
    return [Response(name, *(_effect(rows[name], rights[name], kind) for kind in KINDS)) for name in names]


KINDS = ("swap", "null", "swap_alone", "null_alone")


class _BatchProbe:
    """All evaluations of one batch."""

    def __init__(self, turn: Probed, batch: Batch, section: ProbeSection) -> None:
        self.turn, self.batch, self.section = turn, batch, section
        self.conditioning = turn.conditioning(batch)
        self.x0 = turn.latents(batch)
        self.count = len(batch.ids)
        self.noise = batch.draws.normal("probe", self.x0.shape[1:]).to(self.x0)
        process = turn.pipeline.process
        self.levels = [max(process.sigma(u), process.sigma_min) for u in section.levels]

    def run(
        self,
        names: Sequence[str],
        rows: dict[str, dict[str, list[tuple[Tensor, Tensor]]]],
        rights: dict[str, dict[str, list[Tensor]]],
    ) -> None:
        """Add this batch's (relative change, loss difference) by name and kind, and its losses with all conditions."""
        droppable = self.conditioning.names
        whole = self._predict(self.conditioning, ())
        nothing = self._predict(self.conditioning, droppable) if self.section.alone else None
        for name in names:
            given, partner = self._partners(name)
            swapped = self._swapped(name, partner)
            others = tuple(n for n in droppable if n != name)
            usable = torch.tensor([g and p is not None for g, p in zip(given, partner, strict=True)])
            present = torch.tensor(given)
            tries: list[tuple[str, _Predicted, Any, Tensor]] = [("swap", whole, (swapped, ()), usable)]
            if name in droppable:
                tries.append(("null", whole, (self.conditioning, (name,)), present))
            if self.section.alone and others:
                alone = self._predict(self.conditioning, others)
                tries.append(("swap_alone", alone, (swapped, others), usable))
                if name in droppable:
                    tries.append(("null_alone", alone, nothing, present))
            for kind, right, other, chosen in tries:
                if not bool(chosen.any()):
                    continue
                wrong = other if isinstance(other, _Predicted) else self._predict(*other)
                rows[name].setdefault(kind, []).append(right.against(wrong, chosen))
                rights[name].setdefault(kind, []).append(right.losses[:, chosen])

    def _predict(self, conditioning: Conditioning, dropped: Sequence[str]) -> _Predicted:
        kept = {name: torch.tensor([name not in dropped] * self.count) for name in self.conditioning.names}
        context = self.turn.context(conditioning, kept)
        process, made, losses = self.turn.pipeline.process, [], []
        for sigma in self.levels:
            sigmas = [sigma] * self.count
            predicted = self.turn.predict(self.x0, context, self.noise, sigmas).float()
            target = process.target(self.x0, self.noise, sigmas).float()
            made.append(predicted.flatten(1).cpu())
            losses.append((predicted - target).square().flatten(1).mean(1).cpu())
        return _Predicted(torch.stack(made), torch.stack(losses))

    def _partners(self, name: str) -> tuple[list[bool], list[int | None]]:
        """The rows that have this input, and for each the next row with another value of it."""
        values = [row.get(name) for row in self.batch.inputs]
        keys = [None if value is None else _comparable(value) for value in values]
        partners: list[int | None] = []
        for i, key in enumerate(keys):
            order = [(i + shift) % self.count for shift in range(1, self.count)]
            partners.append(next((j for j in order if keys[j] is not None and keys[j] != key), None))
        return [key is not None for key in keys], partners

    def _swapped(self, name: str, partners: Sequence[int | None]) -> Conditioning:
        index = [i if partner is None else partner for i, partner in enumerate(partners)]
        parts = tuple(_reordered(part, index) if part.name == name else part for part in self.conditioning.parts)
        return Conditioning(parts, self.conditioning.slots)


class _Predicted(NamedTuple):
    """F (levels, B, n) and its losses (levels, B)."""

    values: Tensor
    losses: Tensor

    def against(self, other: _Predicted, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Relative change and loss difference (levels, chosen rows); 0 where both are 0."""
        size = self.values.norm(dim=2)
        moved = (other.values - self.values).norm(dim=2)
        change = torch.where(moved == 0, moved, moved / size.clamp_min(1e-12))
        return change[:, chosen], (other.losses - self.losses)[:, chosen]


def _effect(
    rows: Mapping[str, list[tuple[Tensor, Tensor]]], rights: Mapping[str, list[Tensor]], kind: str
) -> Effect | None:
    if kind not in rows:
        return None
    change = torch.cat([c for c, _ in rows[kind]], dim=1).double()
    worse = torch.cat([w for _, w in rows[kind]], dim=1).double().mean(0)
    right = float(torch.cat(rights[kind], dim=1).double().mean())
    spread = float(worse.std(correction=1)) / math.sqrt(len(worse)) if len(worse) > 1 else math.inf
    mean = float(worse.mean())
    errors = mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
    return Effect(float(change.mean()), mean / right if right else 0.0, errors, len(worse))


def _reordered(part: Encoded, index: Sequence[int]) -> Encoded:
    given = tuple(part.given[i] for i in index) if part.given else ()
    return part._replace(signal=pick_rows(part.signal, index), given=given)


def _comparable(value: Any) -> str | bytes:
    """A key that is equal for equal raw inputs."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return str(value.shape).encode() + value.tobytes()
    return repr(value)


def _rounded(effect: Effect) -> dict[str, float | None]:
    return {name: round(v, 6) if math.isfinite(v) else None for name, v in effect._asdict().items()}


def probe_chart(records: Sequence[Mapping[str, Any]], silent: float = SILENT) -> Any:
    """The curves of probe.jsonl's records: how much a swap changes the prediction and raises the loss."""
    change: dict[str, list[tuple[float, float]]] = {}
    loss: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, found in record["conditions"].items():
            for kind, label in (("swap", name), ("swap_alone", f"{name} (alone)")):
                if kind in found:
                    change.setdefault(label, []).append((record["step"], found[kind]["change"]))
                    loss.setdefault(label, []).append((record["step"], 100 * found[kind]["loss"]))
    return line_chart(
        [
            ("Relative change of the prediction when a condition is swapped", change, 1e-5, silent),
            (
                "Loss with the swapped condition: % more than with the right one (bottom: no more)",
                loss,
                1e-2,
                None,
            ),
        ]
    )
