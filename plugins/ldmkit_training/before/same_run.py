"""Checks that a checkpoint belongs to this run: the same recipe, frozen weights and data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit import LdmkitError, SpecError
from ldmkit_training.before.recipe import MAY_CHANGE, Recipe
from ldmkit_training.data.identity import differing
from ldmkit_training.loop import checkpoints
from ldmkit_training.loop.checkpoints import Checkpoint
from ldmkit_training.stages.taken_over import parts_differences


def check_same_run(
    found: Checkpoint,
    where: Path,
    recipe: Recipe,
    frozen: Mapping[str, str],
    data: Mapping[str, Any],
    parts: Mapping[str, Any] | None = None,
    *,
    allow_changed_data: bool = False,
) -> list[str]:
    """Check that a run may resume from a checkpoint. Returns the allowed differences in the data.

    Moved data are the same data: `data.train` may change if all of the content is known to be equal. Checkpoints of
    older versions that do not record their data or parts are accepted without that check.

    Args:
        parts: `parts_of` the stage being trained.

    Raises:
        SpecError: `other-recipe`, `steps-done`, `other-weights`, `other-parts`, `other-data`.
    """
    fits = "the recipe it was begun with, another `out`, or --fresh"
    before = found.state.get("data")
    changed = [] if before is None else differing(before, data)
    same = before is not None and not changed and bool(before.get("exact")) and bool(data["exact"])
    free = (*MAY_CHANGE, "data.train") if same or allow_changed_data else MAY_CHANGE
    other = checkpoints.difference(_whole(found.state["recipe"], recipe), recipe.model_dump(mode="json"), free)
    if other is not None:
        key, was, now = other
        what = f"the checkpoint was made with {key} = {was!r}, the recipe says {now!r}"
        raise SpecError("other-recipe", what, where=str(where), fits=fits)
    if found.step > recipe.steps:
        what = f"{found.step} steps are done, the recipe wants {recipe.steps}"
        raise SpecError("steps-done", what, where=str(where), fits=f"steps: {found.step} or more, or another `out`")
    for name, digest in frozen.items():
        if found.state["frozen"].get(name) != digest:
            what = f"the weights of {name!r}, which are read and not trained, are others than before"
            raise SpecError("other-weights", what, where=str(where), fits=fits)
    if other_parts := parts_differences(found.state.get("parts", {}), parts or {}):
        what = f"its weights were trained with other parts than the recipe gives now: {'; '.join(other_parts)}"
        raise SpecError("other-parts", what, where=str(where), fits=fits)
    if changed and not allow_changed_data:
        what = f"the training data are others than those it was made with: {'; '.join(changed)}"
        fits = "the data as they were, another `out`, --fresh, or --allow-changed-data to go on with these"
        raise SpecError("other-data", what, where=str(where), fits=fits)
    return changed


def _whole(written: Mapping[str, Any], recipe: Recipe) -> Mapping[str, Any]:
    """A checkpoint's recipe, with keys that its version did not have yet set to their defaults (off)."""
    try:
        return type(recipe).of(written, "recipe").model_dump(mode="json")
    except LdmkitError:  # no longer a valid recipe: compared unchanged
        return written


def rate_jumps(before: Mapping[str, Any], recipe: Recipe, step: int) -> list[str]:
    """A description of each jump in the learning rate that a permitted change of `steps` causes when the run resumes at
    `step`.

    Args:
        before: the checkpoint's recipe.
    """
    planned = int(before["steps"])
    if recipe.steps in (planned, step):
        return []
    schedule, lr = recipe.schedule, recipe.optimiser.lr
    was, now = (lr * schedule.factor(step, steps) for steps in (planned, recipe.steps))
    if abs(now - was) <= EQUAL_RATES * max(now, was):
        return []
    led = f"from the {was:.3g} that the {schedule.type} schedule led to, to {now:.3g}"
    return [f"steps: {recipe.steps}, where {planned} were planned: at step {step + 1} the learning rate jumps {led}"]


EQUAL_RATES = 1e-6
"""Relative difference below which two learning rates count as equal."""
