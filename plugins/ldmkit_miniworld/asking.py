"""Which of the world's conditions a model takes, and which sets of them are to be tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from ldmkit import Conditioner, InputError, Pipeline, suggest
from ldmkit.models.abilities import proposer_of
from ldmkit.run.inputs import input_name, input_owners
from ldmkit_miniworld.oracle_network import SIDE
from ldmkit_miniworld.vocabulary import CLASSES, LAYOUT_CLASSES, SEMANTIC
from ldmkit_miniworld.world import MAX_SIDE, WorldPicture

MODALITIES = ("text", "label", "layout", "semantic")

Conditions: TypeAlias = tuple[str, ...]


def inputs_of(picture: WorldPicture, conditions: Sequence[str]) -> dict[str, Any]:
    """What a model is given of a picture of the world."""
    known = {"text": picture.caption, "label": picture.label, "layout": picture.layout, "semantic": picture.semantic}
    return {name: known[name] for name in conditions}


def modalities_of(pipe: Pipeline) -> Conditions:
    """Those of the world's conditions that a model takes, by the names of its inputs; each is checked to know all of
    the world's labels.

    Raises:
        InputError: `eval-inputs`: it takes none of them; `eval-labels`: it was trained on other labels.
    """
    owners = input_owners(pipe.conditioners, pipe.wiring)
    taken = tuple(name for name in MODALITIES if name in owners)
    if not taken:
        what = f"the model's inputs are {', '.join(sorted(owners)) or 'none'}"
        raise InputError("eval-inputs", what, where="model", fits=f"at least one of {', '.join(MODALITIES)}")
    for name in taken:
        _check_labels(name, owners[name])
    return taken


def _check_labels(name: str, owner: Conditioner) -> None:
    given: Mapping[str, list[tuple[str, Any]]] = {
        "text": [],
        "label": [(label, label) for label in CLASSES],
        "layout": [(label, [{"label": label, "box": [0.25, 0.25, 0.75, 0.75]}]) for label in LAYOUT_CLASSES],
        "semantic": [("maps", np.full((SIDE, SIDE), len(SEMANTIC) - 1, np.uint8))],
    }
    fits = "a model that was trained on miniworld, with its names"
    for label, value in given[name]:
        try:
            owner.parse(value, name)
        except InputError as problem:
            what = f"the model's input {name!r} does not know the world's {label!r}: {problem.what}"
            raise InputError("eval-labels", what, where=f"model.{name}", fits=fits) from None
    classes = getattr(owner.config, "n_classes", None)
    if name == "semantic" and classes != len(SEMANTIC):
        what = f"the model's maps have {classes} labels, the world's {len(SEMANTIC)}"
        raise InputError("eval-labels", what, where="model.semantic", fits=fits)


def required(pipe: Pipeline, taken: Sequence[str]) -> Conditions:
    """Inputs that the model cannot do without: it was trained with no null for them."""
    owners = input_owners(pipe.conditioners, pipe.wiring)
    nulls = {input_name(name, pipe.wiring[name]): pipe.wiring[name].null for name in pipe.conditioners}
    return tuple(name for name in taken if not owners[name].has_null and nulls[name] != "zero")


def proposed_inputs(pipe: Pipeline) -> tuple[str, ...]:
    """Inputs that the model may make up where they are not given."""
    makers = [name for name, part in pipe.conditioners.items() if proposer_of(part) is not None]
    return tuple(dict.fromkeys(input_name(name, pipe.wiring[name]) for name in makers))


def asked_sets(text: str | None, taken: Sequence[str], needed: Sequence[str] = ()) -> tuple[Conditions, ...]:
    """Sets of conditions to try, without doubles, in the order asked for.

    Args:
        text: words between commas: a condition, several joined by `+`, `alone` (each by itself), `all` (all at once),
            `combinations` (every set of two or more); None: `alone,all`.
        taken: what the model takes.
        needed: what it cannot do without: sets that lack it are left out, or refused where they were named.

    Raises:
        InputError: `eval-conditions`.
    """
    several = [chosen for count in range(2, len(taken) + 1) for chosen in combinations(taken, count)]
    groups: dict[str, list[Conditions]] = {"alone": [(name,) for name in taken], "all": [tuple(taken)]}
    groups["combinations"] = several
    found: list[Conditions] = []
    for word in (text if text is not None else "alone,all").split(","):
        named = word.strip()
        if named in groups:
            found += [chosen for chosen in groups[named] if set(needed) <= set(chosen)]
            continue
        parts = [part.strip() for part in named.split("+")]
        for part in parts:
            if part not in taken:
                known = [*taken, *groups]
                what = f"{part!r} is no condition of this model" if part in MODALITIES else f"got {part!r}"
                fits = f"{suggest(part, known)}; joined by + and ,"
                raise InputError("eval-conditions", what, where="--conditions", fits=fits)
        if missing := [name for name in needed if name not in parts]:
            what = f"{named!r}: the model cannot do without {', '.join(missing)}"
            raise InputError("eval-conditions", what, where="--conditions")
        found.append(tuple(name for name in taken if name in parts))
    if not found:
        what = f"no set is left: the model cannot do without {', '.join(needed)}"
        raise InputError("eval-conditions", what, where="--conditions")
    return tuple(dict.fromkeys(found))


def picture_size(pipe: Pipeline, size: int | None = None) -> int:
    """Side of the pictures to draw: as asked for, or the model's own.

    Raises:
        InputError: `eval-size`: none that the oracle can read (64x64, or a multiple that is averaged down).
    """
    own = pipe.defaults.size
    if size is None and own is None:
        what, fits = "the model names no size of its own", f"--size {SIDE}"
        raise InputError("eval-size", what, where="size", fits=fits)
    height, width = (size, size) if size is not None else own or (0, 0)
    if height != width or height < SIDE or height % SIDE or height > MAX_SIDE:
        fits = f"squares of {SIDE}, {2 * SIDE}, ... {MAX_SIDE} pixels: the oracle reads {SIDE}x{SIDE}"
        raise InputError("eval-size", f"pictures of {height}x{width}", where="size", fits=fits)
    return height


def guidance_of(pipe: Pipeline, guidance: Any, conditions: Sequence[str]) -> Any:
    """Guidance for a run with some of the conditions: scales of those that are not given are left out, which changes
    nothing (their views are equal) and saves their evaluations.

    Raises:
        InputError: `eval-guidance`: a scale for what is no input of the model.
    """
    if isinstance(guidance, Mapping) and "type" not in guidance:
        owners = input_owners(pipe.conditioners, pipe.wiring)
        for name in guidance:
            if name not in owners:
                what = f"a scale for {name!r}, which is no input of the model"
                raise InputError("eval-guidance", what, where="guidance", fits=suggest(str(name), owners))
        return {name: scale for name, scale in guidance.items() if name in conditions} or "none"
    own = pipe.defaults.guidance
    if guidance is not None or own.type != "per-condition":
        return guidance
    scales = {name: scale for name, scale in dict(own.config["scales"]).items() if name in conditions}
    return {"type": own.type, "config": {**own.config, "scales": scales}} if scales else "none"
