"""Optimisers of other libraries, under their names in recipes; none of the libraries is a dependency."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from ldmkit import SpecError, suggest

Number: TypeAlias = int | float | bool


class Library(NamedTuple):
    """Where an optimiser comes from.

    Args:
        module, name: module and name of its class.
        package: the package to install.
        takes: keys of the recipe's section that its constructor accepts, besides rate and decay.
        states: state per parameter, in numbers of four bytes.
        fixed: arguments that make it follow the recipe's rate.
    """

    module: str
    name: str
    package: str
    takes: tuple[str, ...]
    states: float
    fixed: Mapping[str, Any] = {}


LibraryType = Literal["adamw8bit", "adam8bit", "adafactor", "prodigy"]

LIBRARIES: dict[str, Library] = {
    "adamw8bit": Library("bitsandbytes.optim", "AdamW8bit", "bitsandbytes", ("betas", "eps"), 0.5),
    "adam8bit": Library("bitsandbytes.optim", "Adam8bit", "bitsandbytes", ("betas", "eps"), 0.5),
    "adafactor": Library(
        "transformers.optimization", "Adafactor", "transformers", (), 0.0,
        {"relative_step": False, "scale_parameter": False, "warmup_init": False},
    ),
    "prodigy": Library("prodigyopt", "Prodigy", "prodigyopt", ("betas", "eps"), 4.0),
}  # fmt: skip
"""Type in a recipe -> its library. Adafactor's state, one row and one column per matrix, is negligible."""

OWN = ("params", "lr", "weight_decay")
"""Arguments that have their own keys in a recipe."""

UNSAID = ("args", "optim_bits", "is_paged", "relative_step", "fsdp_in_use")
"""Arguments that would take control of the rate from the recipe, or of the state from the checkpoints."""


def library_class(type_: str, options: Mapping[str, Any]) -> Any:
    """The class of an optimiser; its options are checked against the constructor.

    Raises:
        SpecError: `optimiser-missing`: the library is not installed, or cannot be imported; `unknown-option`.
    """
    library = LIBRARIES[type_]
    if find_spec(library.module.partition(".")[0]) is None:
        fits = f"pip install {library.package}; or type: adamw"
        what = f"{type_!r} is {library.package}'s, which is not installed"
        raise SpecError("optimiser-missing", what, where="optimiser.type", fits=fits)
    try:
        found = getattr(importlib.import_module(library.module), library.name)
    except Exception as problem:  # incompatible compiled extensions raise all kinds of errors
        what = f"{library.package} cannot be imported: {problem}"
        raise SpecError("optimiser-missing", what, where="optimiser.type", fits="type: adamw") from problem
    known = set(inspect.signature(found).parameters) - {*OWN, *library.takes, *UNSAID}
    for name in options:
        if name not in known:
            what = f"{library.name} has no option {name!r} that a recipe may say here"
            raise SpecError("unknown-option", what, where=f"optimiser.options.{name}", fits=suggest(name, known))
    return found


def build_library(
    type_: str, groups: Sequence[dict[str, Any]], lr: float, given: Mapping[str, Any], options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimiser over parameter groups.

    Args:
        given: the section's values for the keys that it takes.

    Raises:
        SpecError: `optimiser-missing`, `unknown-option`; `option`: it refuses a value.
    """
    made, library = library_class(type_, options), LIBRARIES[type_]
    arguments = {**library.fixed, **{key: given[key] for key in library.takes}, **options}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Prodigy prints how it decays
            optimiser: torch.optim.Optimizer = made(list(groups), lr=lr, **arguments)
    except (TypeError, ValueError) as problem:
        what = f"{library.name} does not take its options: {problem}"
        raise SpecError("option", what, where="optimiser.options") from problem
    return optimiser


def optimiser_numbers(optimiser: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Any]:
    """The optimiser's state apart from tensors, as plain data: `states` by parameter and key, and `groups`, one mapping
    each. Empty if a library keeps tensors only.

    Args:
        names: id of a parameter -> its name.
    """
    states = {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
        if _is_number(value)
    }
    groups = [
        {key: value for key, value in group.items() if _is_number(value) and key not in ("lr", "base_lr")}
        for group in optimiser.param_groups
    ]
    return {"states": states, "groups": groups} if states else {}


def restore_numbers(optimiser: torch.optim.Optimizer, groups: Sequence[Mapping[str, Number]]) -> None:
    """Restore the `groups` of `optimiser_numbers`."""
    for group, numbers in zip(optimiser.param_groups, groups, strict=True):
        group.update(numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
