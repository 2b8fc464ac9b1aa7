"""Checks, before anything is loaded, that a checkpoint holds everything this run needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from ldmkit import Stage, shown
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.loop.checkpoints import STATE, Checkpoint, damaged
from ldmkit_training.loop.libraries import LIBRARIES


def check_state(found: Checkpoint, folder: Path) -> None:
    """Check the types of a checkpoint's plain data.

    Raises:
        SourceError: `checkpoint-damaged`, naming the key.
    """
    kinds = {"recipe": dict, "frozen": dict, "ema_updates": int, "scaler": dict}
    kinds |= {
        key: dict for key in ("data", "parts", "optimisers", "best") if key in found.state
    }  # older ones have none
    for key, kind in kinds.items():
        if key not in found.state or type(found.state[key]) is not kind:
            raise damaged(f"{key!r} is {shown(found.state.get(key))}, not {_NAMES[kind]}", folder / STATE)
    for name, part in found.state.get("parts", {}).items():
        if type(part) is not dict or any(type(part.get(key, {})) is not dict for key in ("config", "assets")):
            raise damaged(f"parts.{name} is {shown(part)}", folder / STATE)


def check_tensors(found: Checkpoint, stage: Stage, recipe: Recipe, folder: Path) -> None:
    """Check that a checkpoint's tensors match the networks in training; the recipe is known to be the same.

    Raises:
        SourceError: `checkpoint-damaged`, naming the file.
    """
    wanted = ("weights", "optimiser") if recipe.ema is None else ("weights", "optimiser", "ema")
    for name in wanted:
        if name not in found.tensors:
            raise damaged("it is missing", folder / f"{name}.safetensors")
    weights, optimiser = folder / "weights.safetensors", folder / "optimiser.safetensors"
    own = {f"{name}/{key}": t for name, turn in stage.turns.items() for key, t in turn.state_dict().items()}
    _check_same(found.tensors["weights"], own, weights)
    stateless = recipe.optimiser.type == "sgd" and recipe.optimiser.momentum == 0
    for name, turn in stage.turns.items():
        has_state = found.step > 0 and turn.active(found.step - 1) and not stateless
        tensors = under(name, found.tensors["optimiser"])
        if recipe.optimiser.type in LIBRARIES:
            plain = found.state.get("optimisers", {}).get(name, {})
            _check_library(tensors, plain, turn, recipe.optimiser.build(turn, name), has_state, optimiser)
        else:
            _check_optimiser(tensors, turn, has_state, optimiser)
    strange = [key for key in found.tensors["optimiser"] if key.partition("/")[0] not in stage.turns]
    if strange:
        raise damaged(f"{strange[0]!r} belongs to no turn", optimiser)
    if recipe.ema is not None:
        averaged = {name: p for name, p in stage.averaged.named_parameters() if p.requires_grad}
        _check_same(found.tensors["ema"], averaged, folder / "ema.safetensors")


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named `<prefix>/...`, with the prefix removed."""
    return {key.removeprefix(f"{prefix}/"): t for key, t in tensors.items() if key.startswith(f"{prefix}/")}


_NAMES = {dict: "a JSON object", int: "a whole number"}


def _check_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    other = sorted(found.keys() ^ wanted.keys())
    if other:
        raise damaged(f"{other[0]!r} is {'missing' if other[0] in wanted else 'in no network of the recipe'}", path)
    for key, tensor in wanted.items():
        _check_shape(key, found[key], tensor, path)


def _check_shape(key: str, found: Tensor, wanted: Tensor, path: Path) -> None:
    if found.shape != wanted.shape:
        raise damaged(f"{key!r} has shape {list(found.shape)}, the network wants {list(wanted.shape)}", path)
    if found.is_floating_point() != wanted.is_floating_point():
        raise damaged(f"{key!r} is of {found.dtype}, the network's is of {wanted.dtype}", path)


def _check_library(
    found: Mapping[str, Tensor], plain: object, turn: nn.Module, fresh: Optimizer, has_state: bool, path: Path
) -> None:
    """Check the state of a library's optimiser: its groups, and that it has states of trained parameters only. The keys
    of each state are up to the library."""
    trained = {name for name, p in turn.named_parameters() if p.requires_grad}
    states = plain.get("states") if type(plain) is dict else None
    groups = plain.get("groups") if type(plain) is dict else None
    if not has_state and not found and not plain:
        return
    if type(states) is not dict or type(groups) is not list or len(groups) != len(fresh.param_groups):
        raise damaged("the optimiser's numbers are missing", path.with_name(STATE))
    if any(type(group) is not dict or not group.keys() <= _numbers(fresh) for group in groups):
        raise damaged("its optimiser's groups hold others than numbers of this optimiser", path.with_name(STATE))
    for key in (*found, *states):
        if key.rpartition("/")[0] not in trained:
            raise damaged(f"{key!r} is of no parameter in training", path)
    if has_state and not {key.rpartition("/")[0] for key in states}:
        raise damaged("the optimiser's state is missing", path)


def _numbers(fresh: Optimizer) -> set[str]:
    """Keys of an optimiser's groups; Prodigy adds two in its first step."""
    return {key for group in fresh.param_groups for key in group} | {"d_denom", "d_hat"}


def _check_optimiser(found: Mapping[str, Tensor], turn: nn.Module, has_state: bool, path: Path) -> None:
    """Check that every state belongs to a trained parameter, is a single number or has the parameter's shape, and that
    all parameters have the same keys."""
    trained = {name: p for name, p in turn.named_parameters() if p.requires_grad}
    held: dict[str, set[str]] = {}
    for key, tensor in found.items():
        name, _, what = key.rpartition("/")
        if name not in trained:
            raise damaged(f"{key!r} is of no parameter in training", path)
        if what != "step" or tensor.numel() != 1:
            _check_shape(key, tensor, trained[name], path)
        held.setdefault(name, set()).add(what)
    kinds = set().union(*held.values())
    for name, some in held.items():
        if some != kinds:
            raise damaged(f"{min(kinds - some)!r} of {name!r} is missing", path)
    if has_state and not held:
        raise damaged("the optimiser's state is missing", path)
