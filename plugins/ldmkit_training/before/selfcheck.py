"""`ldmkit train --check`: gradients reach what they should and nothing else, frozen weights stay frozen, and the stage
can overfit a few rows.

The stage is built as for training and run on a few real batches, in memory only. The report states each check and its
tolerance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ldmkit import Batch, LdmkitError, Stage, Turn
from ldmkit.models.abilities import encode_on
from ldmkit.run.inputs import input_name
from ldmkit.run.sizes import latent_size
from ldmkit_training.before.dropout_check import check_dropout
from ldmkit_training.loop.digests import digest_of
from ldmkit_training.stages.pipeline import PipelineStage
from ldmkit_training.watch.previews import head

WARM_UP = 8
"""Optimiser steps before gradients are checked: layers initialised to zero pass no gradient at first."""
REACH_BATCHES, SEARCHED_BATCHES = 4, 16
"""Number of batches whose gradients are combined, and the maximum if some parameter has no gradient yet."""
RATE = 1e-3
OVERFIT_STEPS, OVERFIT_ROWS = 200, 4
"""Steps and rows (with fixed noise): the loss must fall to the stage's share of its start within these steps."""
BEFORE = -1
"""A step number before the first: turns and terms that start at a later step have not begun."""


class Check(NamedTuple):
    """One line of the report: a check and its result."""

    name: str
    passed: bool
    found: str
    wanted: str


BatchSource = Callable[[int], Batch]
"""Step -> one of its batches, on the stage's device."""


TESTS = ("steps", "reach", "gradients", "dropout", "overfit")
"""The tests, in order."""


def self_check(
    stage: Stage, source: BatchSource, *, only: Collection[str] = TESTS, overfit_seconds: float = 60.0
) -> list[Check]:
    """Run the checks, in order. The stage's weights are unusable afterwards.

    Args:
        source: training batches.
        only: the members of `TESTS` to run.
        overfit_seconds: wall-clock and processor time after which the overfit test ends early; it fails if the loss
            has not fallen far enough by then.
    """
    late = all_active(stage)
    tests: dict[str, Callable[[], Iterable[Any]]] = {
        "steps": lambda: _step_checks(stage, source, late),
        "reach": lambda: _reach_checks(stage, source, late),
        "gradients": lambda: _gradient_checks(stage, source, late),
        "dropout": lambda: check_dropout(stage, source(0)),
        "overfit": lambda: [_overfit(stage, source, overfit_seconds)],
    }
    return [check for name in TESTS if name in only for check in _guarded(name, tests[name])]


def all_active(stage: Stage) -> int:
    """A step at which every turn is active."""
    steps = [0, *(2**i for i in range(41))]
    return next((step for step in steps if all(turn.active(step) for turn in stage.turns.values())), 0)


def _guarded(name: str, test: Callable[[], Iterable[Any]]) -> list[Check]:
    """Run a test; an exception is reported as a failed check."""
    try:
        return [Check(*found) for found in test()]
    except (LdmkitError, RuntimeError, ValueError, AssertionError) as error:
        return [
            Check(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", "to run")
        ]


def _step_checks(stage: Stage, source: BatchSource, late: int) -> list[Check]:
    """A few optimiser steps of every turn: trained parameters must change, frozen ones must stay bit-identical."""
    frozen = dict(stage.frozen)
    before = {name: digest_of(module.state_dict()) for name, module in frozen.items()}
    kept = {name: _untrained(turn) for name, turn in stage.turns.items()}
    kept_before = {name: digest_of(tensors) for name, tensors in kept.items()}
    weights = {name: [p.detach().clone() for p in trained(turn)] for name, turn in stage.turns.items()}
    _train(stage, source, late)
    checks = []
    for name, turn in stage.turns.items():
        moved = [not torch.equal(p, old) for p, old in zip(trained(turn), weights[name], strict=True)]
        found = f"{sum(moved)} of {len(moved)} parameters changed in {WARM_UP} steps"
        checks.append(Check(f"updated: {name}", any(moved), found, "some change"))
    wanted = f"bit for bit the same after {WARM_UP} optimiser steps"
    for name, module in frozen.items():
        same = digest_of(module.state_dict()) == before[name]
        checks.append(Check(f"frozen: {name}", same, "the same" if same else "changed", wanted))
    for name, tensors in kept.items():
        if tensors:
            same = digest_of(tensors) == kept_before[name]
            checks.append(Check(f"frozen in turn {name}", same, "the same" if same else "changed", wanted))
    return checks


def _train(stage: Stage, source: BatchSource, late: int) -> None:
    optimisers = {name: torch.optim.Adam(trained(turn), RATE) for name, turn in stage.turns.items()}
    for step in range(late, late + WARM_UP):
        batch = source(step - late)
        for name, turn in stage.turns.items():
            optimisers[name].zero_grad(set_to_none=True)
            turn(batch, step).total.backward()
            optimisers[name].step()


def _reach_checks(stage: Stage, source: BatchSource, late: int) -> list[Check]:
    """Compare the groups that each part of each loss reaches with those it must reach, over all turns."""
    checks = []
    groups = {
        (name, group): list(params) for name, turn in stage.turns.items() for group, params in turn.groups().items()
    }
    for name, turn in stage.turns.items():
        wanted, met = turn.reaches(), _groups_reached(turn, groups, source, late)
        checks += [_reach_check(name, part, wanted.get(part), met.get(part), groups) for part in {**wanted, **met}]
        listed = {id(p) for (owner, _), params in groups.items() if owner == name for p in params}
        forgotten = [key for key, p in turn.named_parameters() if p.requires_grad and id(p) not in listed]
        found = "all" if not forgotten else f"in no group: {_first_few(forgotten)}"
        checks.append(Check(f"groups: {name}", not forgotten, found, "every trained parameter is in a group"))
    return checks


def _groups_reached(
    turn: Turn, groups: Mapping[tuple[str, str], Sequence[nn.Parameter]], source: BatchSource, late: int
) -> dict[str, set[tuple[str, str]]]:
    """Part of the loss -> groups its gradient reached in any batch."""
    parameters = [p for params in groups.values() for p in params if p.requires_grad]
    met: dict[str, set[tuple[str, str]]] = {}
    for i in range(REACH_BATCHES):
        loss = turn(source(i), late)
        for part, value in loss.parts.items():
            reached = met.setdefault(part, set())
            if not value.requires_grad:
                continue
            grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            touched = {id(p) for p, g in zip(parameters, grads, strict=True) if g is not None and bool(g.any())}
            reached |= {key for key, params in groups.items() if any(id(p) in touched for p in params)}
    return met


def _reach_check(
    turn: str,
    part: str,
    wanted: frozenset[str] | None,
    met: set[tuple[str, str]] | None,
    groups: Mapping[tuple[str, str], Any],
) -> Check:
    name = f"reach: {turn}, {part}"
    if wanted is None:
        return Check(name, False, "the turn does not say what this part of its loss trains", "an entry in reaches()")
    said = ", ".join(sorted(wanted)) or "nothing"
    if met is None:
        return Check(name, False, "no such part in the loss", said)
    unknown = wanted - {group for owner, group in groups if owner == turn}
    if unknown:
        return Check(name, False, f"there is no group {', '.join(sorted(unknown))}", said)
    missing = sorted(wanted - {group for owner, group in met if owner == turn})
    extra = sorted(
        group if owner == turn else f"{owner}'s {group}" for owner, group in met if owner != turn or group not in wanted
    )
    problems = [f"not {', '.join(missing)}"] * bool(missing) + [f"also {', '.join(extra)}"] * bool(extra)
    return Check(name, not problems, "; ".join(problems) or said, said)


def _gradient_checks(stage: Stage, source: BatchSource, late: int) -> list[Check]:
    """Every trained parameter must get a gradient from its turn's total loss in at least one batch."""
    checks = []
    for name, turn in stage.turns.items():
        names = {key: p for key, p in turn.named_parameters() if p.requires_grad}
        missing, broken, rows = dict(names), set(), 0
        for i in range(SEARCHED_BATCHES):
            batch = source(i)
            rows += len(batch.ids)
            keys = list(names)
            grads = torch.autograd.grad(turn(batch, late).total, list(names.values()), allow_unused=True)
            for key, grad in zip(keys, grads, strict=True):
                if grad is not None and bool(grad.any()):
                    missing.pop(key, None)
                if grad is not None and not bool(grad.isfinite().all()):
                    broken.add(key)
            if not missing:
                break
        for key in _undropped_nulls(stage, missing):
            missing.pop(key)
            checks.append(
                Check(f"gradients: {name}", True, f"{key} has none: its condition is never dropped", "a note")
            )
        problems = [f"none for {_first_few(missing)}"] * bool(missing) + [f"not finite: {_first_few(broken)}"] * bool(
            broken
        )
        found = "; ".join(problems) or f"all {len(names)}"
        checks.append(Check(f"gradients: {name}", not problems, f"{found} ({rows} rows)", "one for every parameter"))
    return checks


def _undropped_nulls(stage: Stage, missing: Mapping[str, nn.Parameter]) -> list[str]:
    """Parameters used only when a condition is absent, for conditions that the recipe never drops."""
    if not isinstance(stage, PipelineStage):
        return []
    pipeline, shares = stage.pipeline, stage.drop_rates
    names = {id(p): key for key, p in missing.items()}
    found = []
    for key, conditioner in pipeline.conditioners.items():
        wire = pipeline.wiring[key]
        if shares.get(input_name(key, wire), 0.0) > 0:
            continue
        own = [p for p in conditioner.parameters() if id(p) in names]
        example = conditioner.example((64, 64)) if own else None
        if example is None:
            continue
        null = conditioner.null(encode_on(conditioner, [example], latent_size((64, 64), pipeline.codec)))
        value = null.values[0] if hasattr(null, "values") else null.value
        if value.requires_grad:
            grads = torch.autograd.grad(value.float().square().sum(), own, allow_unused=True)
            found += [names[id(p)] for p, grad in zip(own, grads, strict=True) if grad is not None]
    return found


def _overfit(stage: Stage, source: BatchSource, seconds: float) -> Check:
    """Overfit the first turn on a few rows with fixed noise, times and dropped conditions."""
    turn, share = next(iter(stage.turns.values())), stage.overfit_share
    batch = head(source(0), OVERFIT_ROWS)
    optimiser = torch.optim.Adam(trained(turn), RATE)
    began = time.monotonic(), time.process_time()  # both must be exceeded: the machine may be busy otherwise
    first, last, step = math.nan, math.inf, 0
    for step in range(OVERFIT_STEPS + 1):
        loss = turn(batch, BEFORE).total
        last = float(loss.detach())
        first = last if step == 0 else first
        late = min(time.monotonic() - began[0], time.process_time() - began[1]) > seconds
        if not math.isfinite(last) or last <= share * first or late:
            break
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained(turn), 1.0)
        optimiser.step()
    found = f"from {first:.4g} to {last:.4g} in {step} steps on {len(batch.ids)} rows"
    wanted = f"to {share:g} of the first loss within {OVERFIT_STEPS} steps"
    return Check("overfit", last <= share * first, found, wanted)


def trained(turn: Turn) -> list[nn.Parameter]:
    """The parameters that the turn's optimiser gets."""
    return [p for p in turn.parameters() if p.requires_grad]


def _untrained(turn: Turn) -> dict[str, Tensor]:
    return {name: p for name, p in turn.named_parameters() if not p.requires_grad}


def _first_few(names: Iterable[str], count: int = 4) -> str:
    listed = sorted(names)
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")
