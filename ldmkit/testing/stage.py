"""The contract of training stages: deterministic losses, correct parameter groups, and unchanged frozen networks.

Batches have three pictures of 16 x 16 pixels, and the inputs of the stage's example.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldmkit.contracts.draws import Draws
from ldmkit.contracts.example import Example
from ldmkit.contracts.stage import Batch, Loss, Stage, StageSetup, Turn
from ldmkit.testing.batches import expect_state, normal, same, snapshot
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect
from ldmkit.testing.part import examples_of
from ldmkit.testing.rng import rng_states

ROWS, SIZE = 3, (16, 16)
LATEST = 2**40
"""A step at which every turn is active."""
RATE, STEPS = 1e-3, 3
SUM = 1e-5
"""Relative tolerance of a total against the sum of its parts: reordered float32 sums of a few terms."""


@dataclass(frozen=True)
class Subject:
    """A stage and one configuration of it, with the inputs of a batch's rows."""

    cls: type[Stage]
    config: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...] = ()

    @contextmanager
    def built(self) -> Iterator[Stage]:
        """The stage, built as from a recipe; its files exist inside the `with` block."""
        with tempfile.TemporaryDirectory() as name:
            self.cls.write_example(Path(name))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                stage = self.cls.build(self.cls.Config.of(dict(self.config), "config"), StageSetup(Path(name), 0, SIZE))
            for turn in stage.turns.values():
                turn.train()
            yield stage

    def build(self) -> None:
        """Build it once."""
        with self.built():
            pass

    def batch(self, step: int = 0) -> Batch:
        """A batch of pictures in [-1,1], with the example's inputs in turn."""
        images = torch.tanh(normal(ROWS, 3, *SIZE, seed=step))
        inputs = [self.inputs[i % len(self.inputs)] if self.inputs else {} for i in range(ROWS)]
        ids = tuple(f"sample {i}" for i in range(ROWS))
        return Batch(ids, images, None, None, inputs, SIZE, Draws(0, step, tuple(range(ROWS))))


def subject(cls: type[Stage], example: Example) -> Subject:
    """The subject of the checks: a class and one of its examples."""
    return Subject(cls, dict(example.config), tuple(example.inputs))


def check_stage(cls: type[Stage], config: Mapping[str, Any] | None = None, *, inputs: Any = ()) -> Report:
    """Run all checks of a training stage.

    Args:
        config: its own keys of a recipe; None: its first example.
        inputs: raw inputs by name, one mapping a row.
    """
    own = config is None and examples_of(cls)
    return check_class("stage", cls, None if own else Example(config or {}, inputs))


def losses(stage: Stage, batch: Batch, step: int = LATEST) -> dict[str, Loss]:
    """The losses of all turns."""
    return {name: turn(batch, step) for name, turn in stage.turns.items()}


def trained(turn: Turn) -> dict[str, nn.Parameter]:
    """The parameters of the turn's optimiser, by name."""
    return {name: p for name, p in turn.named_parameters() if p.requires_grad}


@check("stage", "turns")
def turns(s: Subject) -> None:
    """`turns` has at least one `Turn` with parameters to train; the first turn trains all parameters of `averaged`.

    The running average is kept of the parameters of `averaged`, and put in their place for what is saved.
    """
    with s.built() as stage:
        expect(bool(stage.turns), "at least one turn", "none")
        for name, turn in stage.turns.items():
            expect(isinstance(turn, Turn), f"turn {name!r} to be an ldmkit.Turn", type(turn).__name__)
            expect(bool(trained(turn)), f"parameters to train in turn {name!r}", "none that require a gradient")
        first = {id(p) for p in next(iter(stage.turns.values())).parameters()}
        strange = [n for n, p in stage.averaged.named_parameters() if p.requires_grad and id(p) not in first]
        expect(not strange, "`averaged` to have only parameters that the first turn trains", f"also {strange[:4]}")


@check("stage", "loss")
def loss(s: Subject) -> None:
    """A turn returns a finite scalar with a gradient, the sum of its parts; terms are scalars without gradients.

    Terms are logged under their names; parts are what `ldmkit train --check` follows to the parameters they train.
    """
    with s.built() as stage:
        for name, made in losses(stage, s.batch()).items():
            expect(isinstance(made, Loss), f"an ldmkit.Loss from turn {name!r}", type(made).__name__)
            total = made.total
            got = f"{total.detach()!r:.80}, requires_grad={total.requires_grad}"
            fine = total.ndim == 0 and total.requires_grad and bool(total.isfinite())
            expect(fine, f"a finite scalar with a gradient from turn {name!r}", got)
            whole = float(sum(part.detach().double() for part in made.parts.values()))
            close = math.isclose(whole, float(total.detach()), rel_tol=SUM, abs_tol=SUM)
            expect(close, f"parts of turn {name!r} that add up to {float(total.detach()):g}", f"{whole:g}")
            grown = [term for term, value in made.terms.items() if value.requires_grad or value.ndim]
            expect(not grown, f"detached scalars as terms of turn {name!r}", f"not so: {grown[:4]}")


@check("stage", "determinism", cause=True)
def determinism(s: Subject) -> None:
    """The same batch and step give the same loss, bit for bit, and global generators are not advanced.

    A run that was interrupted goes on as if it had not been: take random numbers from `batch.draws` alone.
    """
    with s.built() as stage:
        batch = s.batch()
        torch.manual_seed(1)
        before = rng_states()
        first = losses(stage, batch)
        expect(rng_states() == before, "global generators as they were", "one that was advanced")
        torch.manual_seed(2)
        again = losses(stage, batch)
        for name in first:
            same([first[name].total], [again[name].total], f"the loss of turn {name!r}")


@check("stage", "groups")
def groups(s: Subject) -> None:
    """Every trained parameter is in one of its turn's groups, and `reaches` maps parts of the loss to groups.

    `ldmkit train --check` compares them with where gradients really arrive.
    """
    with s.built() as stage:
        made = losses(stage, s.batch())
        for name, turn in stage.turns.items():
            listed = {id(p) for params in turn.groups().values() for p in params}
            left = [key for key, p in trained(turn).items() if id(p) not in listed]
            expect(not left, f"every trained parameter of turn {name!r} in a group", f"in none: {left[:4]}")
            wanted = turn.reaches()
            expect(
                set(wanted) == set(made[name].parts), f"reaches() of parts {sorted(made[name].parts)}", f"{[*wanted]}"
            )
            unknown = {group for reached in wanted.values() for group in reached} - set(turn.groups())
            expect(not unknown, f"reaches() to name groups {sorted(turn.groups())}", f"also {sorted(unknown)}")


@check("stage", "frozen")
def frozen(s: Subject) -> None:
    """Optimiser steps change what is trained, and not a bit of what is `frozen`.

    A turn must not hold a frozen network as a submodule: the optimiser and several processes would get its parameters.
    """
    with s.built() as stage:
        before = {name: snapshot(module) for name, module in stage.frozen.items()}
        started = {name: snapshot(turn) for name, turn in stage.turns.items()}
        held = {id(p) for turn in stage.turns.values() for p in trained(turn).values()}
        for name, module in stage.frozen.items():
            shared = [key for key, p in module.named_parameters() if id(p) in held]
            expect(not shared, f"nothing of the frozen {name!r} in a turn's optimiser", f"{shared[:4]}")
        for name, turn in stage.turns.items():
            optimiser = torch.optim.Adam(trained(turn).values(), RATE)
            for step in range(STEPS):
                optimiser.zero_grad()
                turn(s.batch(step), LATEST).total.backward()
                optimiser.step()
            moved = [key for key, value in snapshot(turn).items() if not torch.equal(value, started[name][key])]
            expect(bool(moved), f"{STEPS} steps of Adam to change turn {name!r}", "no change")
        for name, module in stage.frozen.items():
            expect_state(module.state_dict(), before[name], f"in the frozen {name!r} after {STEPS} steps")


@check("stage", "inputs-untouched")
def inputs_untouched(s: Subject) -> None:
    """Turns do not modify the batch: the next turn of the step gets the same one."""
    with s.built() as stage:
        batch, wanted = s.batch(), s.batch()
        losses(stage, batch)
        assert batch.images is not None and wanted.images is not None
        expect(torch.equal(batch.images, wanted.images), "the pictures as they were", "different ones")
        expect(repr(batch.inputs) == repr(wanted.inputs), "the inputs as they were", "different ones")


@check("stage", "validate")
def validate(s: Subject) -> None:
    """`validate` returns finite numbers by name, the same at every call, and changes neither weights nor modes."""
    with s.built() as stage:
        modules = [*stage.turns.values(), *stage.frozen.values()]
        before, modes = [snapshot(module) for module in modules], _modes(modules)
        first = dict(stage.validate([s.batch(7)]))
        if not first:
            raise NotApplicable("it measures nothing on held-out batches")
        broken = [name for name, value in first.items() if not math.isfinite(value)]
        expect(not broken, "finite figures", f"not so: {broken}")
        again = dict(stage.validate([s.batch(7)]))
        expect(again == first, f"the same figures at every call: {first}", f"{again}")
        for module, wanted in zip(modules, before, strict=True):
            expect_state(module.state_dict(), wanted, "after validate()")
        expect(_modes(modules) == modes, "every module in the mode it was in", "different ones")


def _modes(modules: list[nn.Module]) -> list[bool]:
    return [inner.training for module in modules for inner in module.modules()]


@check("stage", "save")
def save(s: Subject) -> None:
    """`save(folder)` writes what users load into a new folder, and leaves the weights as they are."""
    with s.built() as stage, tempfile.TemporaryDirectory() as name:
        before = {key: snapshot(turn) for key, turn in stage.turns.items()}
        stage.save(Path(name) / "model")
        expect(any(Path(name).rglob("*")), "files in the folder", "none")
        for key, turn in stage.turns.items():
            expect_state(turn.state_dict(), before[key], f"in turn {key!r} after save()")
