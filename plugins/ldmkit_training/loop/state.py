"""The state of a run: collected into a checkpoint, and restored from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldmkit import Stage
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.loop.checkpoints import Checkpoint
from ldmkit_training.loop.ema import Ema
from ldmkit_training.loop.optimisers import optimiser_plain, optimiser_tensors, restore_optimiser
from ldmkit_training.loop.resuming import under
from ldmkit_training.loop.sharding import gathered, gathered_all, sharded_like
from ldmkit_training.loop.steps import Steps


def checkpoint_of(
    step: int, recipe: Recipe, stage: Stage, steps: Steps, ema: Ema | None, known: Mapping[str, Any]
) -> Checkpoint:
    """A checkpoint of the run's current state. With sharded weights every process must call this.

    Args:
        known: further entries of the JSON state.
    """
    weights: dict[str, Tensor] = {}
    optimisers: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for name, turn in stage.turns.items():
        weights |= {f"{name}/{key}": gathered(tensor) for key, tensor in turn.state_dict().items()}
        state = optimiser_tensors(steps.optimisers[name], turn)
        optimisers |= {f"{name}/{key}": gathered(tensor) for key, tensor in state.items()}
        if held := optimiser_plain(steps.optimisers[name], turn):
            numbers[name] = held
    tensors: dict[str, Mapping[str, Tensor]] = {"weights": weights, "optimiser": optimisers}
    if ema is not None:
        tensors["ema"] = gathered_all(ema.tensors)
    kept: dict[str, Any] = {"optimisers": numbers} if numbers else {}
    plain = {
        **kept,
        "recipe": recipe.model_dump(mode="json"),
        **known,
        "ema_updates": 0 if ema is None else ema.updates,
        "scaler": steps.scaler.state_dict(),
        "torch": str(torch.__version__),
    }
    return Checkpoint(step, tensors, plain)


def restore(found: Checkpoint, stage: Stage, steps: Steps, ema: Ema | None) -> None:
    """Load weights, optimiser states, the running average and the loss scaler's state from a checkpoint."""
    for name, turn in stage.turns.items():
        own, saved = turn.state_dict(), under(name, found.tensors["weights"])
        turn.load_state_dict({key: sharded_like(t, own[key]) if key in own else t for key, t in saved.items()})
        plain = found.state.get("optimisers", {}).get(name, {})
        restore_optimiser(steps.optimisers[name], turn, under(name, found.tensors["optimiser"]), plain)
    if ema is not None:
        ema.restore(found.tensors["ema"], int(found.state["ema_updates"]))
    if found.state["scaler"] and steps.scaler.is_enabled():
        steps.scaler.load_state_dict(found.state["scaler"])
