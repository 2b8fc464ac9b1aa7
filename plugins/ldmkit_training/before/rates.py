"""Rules about the keys of optimiser, schedule and average; see `without_effect`."""

from __future__ import annotations

from itertools import accumulate

from ldmkit_training.before.case import Case, Reasons, set_keys
from ldmkit_training.loop.libraries import LIBRARIES
from ldmkit_training.loop.optimisers import Cycles, Warmed

LEAST_FACTOR = 0.05
"""Of the rate that Prodigy finds; what is below was meant as a rate."""


def untrained(case: Case) -> Reasons:
    recipe = case.recipe
    if recipe.steps == 0:
        for key in ("optimiser", "schedule", "accumulate", "clip", "ema", "precision"):
            if case.sets(recipe, key):
                yield key, "steps: 0 trains nothing"


def optimiser(case: Case) -> Reasons:
    section = case.recipe.optimiser
    if section.type == "sgd":
        yield from set_keys(case, "optimiser", section, ("betas", "eps"), "sgd has none")
    else:
        takes = LIBRARIES[section.type].takes if section.type in LIBRARIES else ("betas", "eps")
        reason = f"{section.type} takes `betas`" if "betas" in takes else f"{section.type} has none"
        yield from set_keys(case, "optimiser", section, ("momentum",), reason)
        others = tuple(key for key in ("betas", "eps") if key not in takes)
        yield from set_keys(case, "optimiser", section, others, f"{section.type} has `options` of its own")
    if section.type == "prodigy" and section.lr < LEAST_FACTOR:
        yield "optimiser.lr", f"{section.lr:g} times the rate that prodigy finds: next to nothing is learnt (lr: 1.0)"
    if section.weight_decay == 0:
        yield from set_keys(case, "optimiser", section, ("decay",), "weight_decay: 0 makes nothing decay")
    if set(case.stage.turns) <= set(section.rates):
        yield from set_keys(case, "optimiser", section, ("lr",), "every turn has a rate of its own in `rates`")
    yield from _decay(case)


def _decay(case: Case) -> Reasons:
    """The factor that decay applies to a weight in one step at the highest rate; a negative one destroys training."""
    section, schedule = case.recipe.optimiser, case.recipe.schedule
    rate = max(section.rates.get(name, section.lr) for name in case.stage.turns)
    if isinstance(schedule, Cycles):
        rate *= max(*schedule.start, *schedule.peak, *schedule.floor)
    left = 1 - rate * section.weight_decay
    # Adam rescales the decay added to the gradient, Prodigy rescales the rate
    if section.type not in ("adam", "adam8bit", "prodigy") and left <= 0:
        yield "optimiser.weight_decay", f"at a rate of {rate:g} each step multiplies the weights by {left:.3g}"


def schedule(case: Case) -> Reasons:
    schedule, steps = case.recipe.schedule, case.recipe.steps
    if isinstance(schedule, Warmed):
        if schedule.type == "constant":
            yield from set_keys(case, "schedule", schedule, ("final",), "a constant rate does not come down to it")
        if steps and schedule.warmup > steps:
            yield "schedule.warmup", f"{schedule.warmup} steps of {steps}: the rate never reaches `optimiser.lr`"
        elif steps and schedule.warmup == steps and schedule.type != "constant":
            yield "schedule.type", f"the warm-up takes all {steps} steps: nothing comes down"
    elif isinstance(schedule, Cycles) and steps:
        starts = [0, *accumulate(schedule.lengths)][: len(schedule.lengths)]
        if schedule.warmup[0] > steps:
            yield "schedule.warmup", f"{schedule.warmup[0]} steps of {steps}: the rate never reaches its `peak`"
        late = next((i for i, start in enumerate(starts) if start >= steps), None)
        if late is not None:
            yield "schedule.lengths", f"cycle {late + 1} begins after {starts[late]} steps, the run has {steps}"


def ema(case: Case) -> Reasons:
    section, steps = case.recipe.ema, case.recipe.steps
    if section is None or not steps:
        return
    if not section.warmup:
        if (first := section.decay**steps) > MOST_OF_THE_FIRST:
            reason = f"without `warmup` after {steps} steps {first:.1%} of the saved average are the first weights"
            yield "ema.decay", reason
        return
    most = (1 + steps) / (10 + steps)
    if most < section.decay and case.sets(section, "decay"):
        yield "ema.decay", f"{section.decay:g} is not reached in {steps} steps of `warmup`, which goes up to {most:.4g}"


MOST_OF_THE_FIRST = 0.1
"""Share of the initial weights in the saved average above which there is a warning."""
