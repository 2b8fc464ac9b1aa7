"""The choice of weights in a component's folder: the default ones, or a variant (`model.fp16.safetensors`)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from ldmkit import InputError, SourceError

RAW = "non_ema"
"""Variant of raw (non-EMA) weights in some folders."""

_STEMS = r"(?:diffusion_pytorch_model|model|pytorch_model)"
_FILE = re.compile(rf"{_STEMS}(?:\.(?P<variant>(?![^.]*-of-)[^.]+))?(?P<suffix>\.safetensors|\.bin)")
_INDEX = re.compile(
    rf"{_STEMS}(?:\.(?P<before>[^.]+))?(?P<suffix>\.safetensors|\.bin)"
    r"(?:\.(?P<legacy>[^.]+))?\.index(?:\.(?P<variant>[^.]+))?\.json"
)
_SHARD = re.compile(r".+-\d{5}-of-\d{5}(\.[^.]+)?\.(safetensors|bin)")


def variants_in(folder: Path) -> dict[str, str]:
    """Variant ('' for the default) -> file to open, the index for sharded weights.

    As in the libraries: safetensors before pickles; if there are both shards and a single file, diffusers reads the
    shards of its own models, transformers the single file.
    """
    found: dict[str, tuple[tuple[bool, bool], str]] = {}
    for name in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []:
        match, index = _FILE.fullmatch(name), False
        if match is None:
            match, index = _INDEX.fullmatch(name), True
        if match is None:
            continue
        groups = match.groupdict()
        variant = groups["variant"] or groups.get("legacy") or groups.get("before") or ""
        later = (match["suffix"] == ".bin", index != name.startswith("diffusion_pytorch_model"))
        if variant not in found or later < found[variant][0]:
            found[variant] = (later, name)
    return {variant: name for variant, (_, name) in found.items()}


def check_choice(ema: bool | None, variant: str | None) -> None:
    """Refuse `ema` together with a variant, which already selects the weights.

    Raises:
        InputError: `ema-and-variant`.
    """
    if variant is not None and ema is not None and (variant == RAW) is ema:
        what = f"variant={variant!r} and ema={ema} ask for different weights"
        raise InputError("ema-and-variant", what, where="variant", fits="one of the two")
    if variant not in (None, RAW) and ema is not None:
        what = f"variant={variant!r} names the weights, ema={ema} chooses among others"
        raise InputError("ema-and-variant", what, where="variant", fits="one of the two")


def wanted_variants(
    folders: Mapping[str, Path], ema: bool | None, variant: str | None, where: str
) -> tuple[dict[str, str], list[str]]:
    """The variant to read for each component, by diffusers' rules, and notes.

    A component without the variant falls back to its default weights, if another component has it.

    Args:
        folders: the folders of one pipeline's components.
        ema: False selects the variant `non_ema`, unless `variant` is given.

    Raises:
        SourceError: `no-variant`: no component has it; `variant-needed`: a component has neither the variant nor
            default weights.
        InputError: `ema-and-variant`.
    """
    check_choice(ema, variant)
    asked = RAW if variant is None and ema is False else variant
    has = {name: variants_in(folder) for name, folder in folders.items()}
    have = [name for name, found in has.items() if asked in found]
    if variant is not None and not have and any(has.values()):
        raise no_variant(variant, {one for found in has.values() for one in found}, where)
    chosen = {name: asked if asked is not None and name in have else "" for name in has}
    for name, found in has.items():
        if found and chosen[name] not in found:
            raise _needed(found, None if asked == RAW else asked, str(folders[name]))
    notes = [f"{name}: weights of variant {asked!r}" for name in have]
    lacking = [name for name in has if name not in have]
    if variant is not None and lacking:
        notes.append(f"no weights of variant {variant!r} in {', '.join(lacking)}: the default ones are used")
        warnings.warn(f"{where}: {notes[-1]}", stacklevel=2)
    elif variant is None and asked == RAW and not have:
        notes.append("there are no raw weights (variant 'non_ema'): the default ones are used, averaged as they may be")
        warnings.warn(f"{where}: {notes[-1]}", stacklevel=2)
    return chosen, notes


def no_variant(variant: str, there: Iterable[str], where: str) -> SourceError:
    """The error for a variant that no component has."""
    named = [f"variant={name!r}" for name in sorted(there) if name]
    fits = ", ".join([*named, *(["default weights (no variant)"] if "" in there else [])])
    return SourceError("no-variant", f"there are no weights of variant {variant!r}", where=where, fits=fits)


def _needed(there: Iterable[str], asked: str | None, where: str) -> SourceError:
    lacks = "no default weights" + ("" if asked is None else f", and none of variant {asked!r},")
    what = f"there are {lacks} but weights of variant {', '.join(map(repr, sorted(there)))}"
    return SourceError(
        "variant-needed", what, where=where, fits=" or ".join(f"variant={one!r}" for one in sorted(there))
    )


def is_shard(name: str) -> bool:
    """Whether a file name is that of a shard."""
    return _SHARD.fullmatch(name) is not None
