"""Resources that a recipe requires beyond its own picture, which need trust in the recipe's author."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldmkit.bounds import MAX_PIXELS, MAX_STEPS
from ldmkit.errors import LdmkitError, SourceError, shown
from ldmkit.files.reading import is_within
from ldmkit.run.recipe import calls_of

_NAMES = ("image", "latents", "mask", "picture", "hint", "reference", "ip-image", "ip-region")
"""Fields and inputs that hold pictures."""

_NUMBERED = re.compile(r"(-\d+)?(\[\d+\])*$")
"""What stands behind a name that was taken: hint-2."""


def model_needs(recipe: Mapping[str, Any], folder: Path, *, given: bool = False) -> list[str]:
    """Sources outside of bundled models and the picture's folder that loading a recipe's model would read.

    Args:
        given: whether the caller chose the model, in which case only the recipe's config counts.
    """
    needs: list[str] = []
    model = recipe.get("model")
    if not given and model is not None and not _known(model, folder):
        what = "the model on the hub" if str(model).startswith("hf:") else "the model"
        needs.append(f"{what} {shown(model, 200)} (--model names one)")
    for number, update in enumerate(recipe.get("updates") or []):
        kind = update.get("kind") if isinstance(update, Mapping) else None
        what = "the file of changes" if kind is None else f"the file of an {shown(kind, 20)}"
        for source in _sources(update):
            if not (isinstance(source, str) and not source.startswith("hf:") and is_within(Path(source), folder)):
                needs.append(f"{what} {shown(source, 200)} (updates[{number}])")
    config = (recipe.get("load") or {}).get("config")
    if config is not None and not (isinstance(config, str) and is_within(Path(config), folder)):
        needs.append(f"the config {shown(config, 200)}")
    return needs


def _sources(update: object) -> list[object]:
    """The files that an entry of `updates` names."""
    if not isinstance(update, Mapping):
        return [update]
    files = update.get("files")
    inner = list(files.values()) if isinstance(files, Mapping) else []
    return [update.get("source"), *(file.get("source") if isinstance(file, Mapping) else file for file in inner)]


def input_needs(recipe: Mapping[str, Any], *folders: Path) -> list[str]:
    """Pictures and guidance models outside of the folders that a recipe refers to, and work beyond the limits."""
    return [need for call in calls_of(recipe).values() for need in _needs_of(call, folders)]


def _needs_of(recipe: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    needs: list[str] = []
    for place in ("start", "inputs", "negative", "proposed", "guidance", "sampler", "grid", "cache"):
        for where, value in _pictures(recipe.get(place), place):
            if not is_within(Path(value), *folders):
                needs.append(f"the file {shown(value, 200)} ({where})")
    read = [one for place in ("inputs", "negative", "proposed") for one in _weights(recipe.get(place), place)]
    for where, path in read:
        if not is_within(Path(path), *folders):
            needs.append(f"the weights {shown(path, 200)} ({where})")
    for where, model in _models(recipe.get("guidance"), "guidance"):
        if not any(_known(model, folder) for folder in folders):
            needs.append(f"the model {shown(model, 200)} ({where})")
    steps, size = recipe.get("steps"), recipe.get("size")
    if isinstance(steps, int) and steps > MAX_STEPS:
        needs.append(f"{steps} steps, more than {MAX_STEPS}")
    if isinstance(size, (list, tuple)) and all(isinstance(side, int) for side in size):
        pixels = 1
        for side in size:
            pixels *= abs(side)
        if pixels > MAX_PIXELS:
            needs.append(f"a picture of {pixels} pixels, more than {MAX_PIXELS}")
    return needs


def check_needs(needs: Sequence[str], where: str) -> None:
    """Refuse a recipe with such needs.

    Raises:
        SourceError: `recipe-needs`, with a list of them.
    """
    if needs:
        what = f"its recipe requires {'; '.join(needs[:10])}" + (" ..." if len(needs) > 10 else "")
        fits = "--trust (trust=True) if it comes from someone you trust"
        raise SourceError("recipe-needs", what, where=where, fits=fits)


def _known(model: object, folder: Path) -> bool:
    from ldmkit.plugins.catalogue import by_name

    if not isinstance(model, str) or model.startswith(("hf:", "~")) or not model or "\0" in model:
        return False
    try:
        there = Path(model).exists()
    except OSError:
        return False
    return is_within(Path(model), folder) if there else model in by_name("model")


def _models(value: object, where: str) -> Iterator[tuple[str, object]]:
    """Models that a guidance or a nested one refers to (a classifier)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "model" and inner is not None:
                yield f"{where}.{key}", inner
            else:
                yield from _models(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _models(inner, f"{where}[{number}]")


def _weights(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Files and folders that the extractors of hints read."""
    if isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _weights(inner, f"{where}[{number}]")
    if not isinstance(value, Mapping):
        return
    spec = value.get("extract")
    if isinstance(spec, Mapping) and isinstance(spec.get("type"), str):
        config = spec["config"] if isinstance(spec.get("config"), Mapping) else spec
        named = [(field, config.get(field)) for field in _reads(spec["type"])]
        yield from ((f"{where}.extract.{field}", path) for field, path in named if isinstance(path, str))
    for key, inner in value.items():
        yield from _weights(inner, f"{where}.{key}")


def _reads(extractor: str) -> tuple[str, ...]:
    from ldmkit.plugins.catalogue import get

    try:
        found: Any = get("extractor", extractor)
        return tuple(found.reads)
    except LdmkitError:  # making the hint says what is wrong with it
        return ()


def _pictures(value: object, where: str) -> Iterator[tuple[str, str]]:
    """File paths in the fields for pictures, which are not data URIs."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _pictures(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _pictures(inner, f"{where}[{number}]")
    elif isinstance(value, str) and not value.startswith("data:"):
        name = _NUMBERED.sub("", where.rpartition(".")[2])
        if where == "start" or name in _NAMES:
            yield where, value
