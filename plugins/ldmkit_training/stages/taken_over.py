"""Checks that reused weights keep their meaning: compares the configs, files and process they were trained with to
those of the recipe.

Shapes do not tell: a class table whose names changed places, attention with other heads, another vocabulary or another
prediction all fit. What is frozen must keep its meaning; what learns may learn another, and that is said.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ldmkit import CompositionError, Part, PartSpec, PluginError, Stage, shown
from ldmkit.models.digests import file_digests
from ldmkit.models.found import find_part
from ldmkit_training.stages.pipeline import pipeline_in


def parts_of(stage: Stage) -> dict[str, Any]:
    """What the weights in a checkpoint mean: class, config and digests of files of every part of a stage, and the
    process; JSON data."""
    found: dict[str, Any] = {}
    pipeline = pipeline_in(stage)
    if pipeline is not None:
        found = {path: _described(part) for path, part in pipeline.parts.items().items()}
        process = pipeline.process
        found["process"] = {"class": type(process).__name__, "config": process.model_dump(mode="json")}
    others = {"codec": stage.codec, "averaged": stage.averaged, **stage.frozen} if pipeline is None else {}
    return found | {name: _described(part) for name, part in others.items() if isinstance(part, Part)}


def parts_differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Of two stages whose recipes are the same; keys that only one of them has came with another version."""
    said: list[str] = []
    for name in sorted(was.keys() & now.keys()):
        one, other = was[name], now[name]
        found = list(config_differences({"class": one.get("class")}, {"class": other["class"]}, name))
        found += config_differences(one.get("config") or {}, other["config"], f"{name}.config")
        if "assets" in one and "assets" in other:
            found += [d._replace(key=f"{name} {d.key}") for d in asset_differences(one["assets"], other["assets"])]
        said += map(str, found)
    return said


def _described(part: Part) -> dict[str, Any]:
    config = part.config.model_dump(mode="json")
    return {"class": type(part).__name__, "config": config, "assets": asset_digests(part)}


class Difference(NamedTuple):
    """A key that had one value and now has another, as JSON data; `moved`: a name that now stands for another row."""

    key: str
    was: Any
    now: Any
    moved: str | None = None

    def __str__(self) -> str:
        return f"{self.key} was {shown(self.was)}, it is {shown(self.now)} here"


def spec_differences(kind: str, was: PartSpec, now: PartSpec, where: str) -> list[Difference]:
    """Field by field, with both configs' defaults; of parts of two types the type and the fields that both have."""
    try:
        before = _resolved(kind, was, where)
    except PluginError:
        if was.type == now.type:
            raise
        before = was.config  # of a type that is not installed, whose weights another takes over
    found = [] if was.type == now.type else [Difference("type", was.type, now.type)]
    return [*found, *config_differences(before, _resolved(kind, now, where))]


def config_differences(was: Mapping[str, Any], now: Mapping[str, Any], path: str = "config") -> Iterator[Difference]:
    """The fields that both have and that differ; who wrote a part inside, and in which version, does not count."""
    parts = "type" in was and "type" in now
    for name in was:
        if name not in now or was[name] == now[name] or (parts and name in ("distribution", "version")):
            continue
        one, other, key = was[name], now[name], f"{path}.{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from config_differences(one, other, key)
        else:
            yield Difference(key, one, other, _moved(one, other))


def asset_differences(was: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """Of the digests of two sets of files; a part that had none has gained them, which changes nothing that it knew."""
    names = sorted(was.keys() | now.keys()) if was else []
    return [
        Difference(f"assets: {name}", *(str(each.get(name, "missing"))[:16] for each in (was, now)))
        for name in names
        if was.get(name) != now.get(name)
    ]


def asset_digests(part: Part) -> dict[str, str]:
    """SHA-256 of each file that a part would be saved with beside its tensors."""
    with tempfile.TemporaryDirectory(prefix="ldmkit-assets-") as folder:
        part.save_assets(Path(folder))
        return {name: digest.sha256 for name, digest in file_digests(Path(folder)).items()}


def check_meaning(found: list[Difference], where: str, origin: str, *, learns: bool) -> list[str]:
    """Refuse, or warn of, what changes the meaning of weights taken over from `origin`; returns what was warned of.

    Raises:
        CompositionError: `names-moved`: names that both have stand for other rows; `other-meaning`: weights that are
            frozen would be read in another way than they were trained in.
    """
    for difference in found:
        if difference.moved is not None:
            what = f"{difference}: {shown(difference.moved)} would get the weights of another"
            fits = "the names of both in the same places; new ones at the end, or in the place of those that are gone"
            raise CompositionError("names-moved", f"{origin}: {what}", where=f"{where}.{difference.key}", fits=fits)
    if not found:
        return []
    listed = "; ".join(map(str, found))
    if not learns:
        what = f"its weights are frozen, and are those of {origin}, trained otherwise: {listed}"
        raise CompositionError("other-meaning", what, where=where, fits="the same as there, or a part that is trained")
    said = f"{where}: its weights, from {origin}, were trained otherwise: {listed}"
    warnings.warn(said, stacklevel=3)
    return [said]


def _moved(was: Any, now: Any) -> str | None:
    """A name that has different positions in two lists of names."""
    if not (_are_names(was) and _are_names(now)):
        return None
    places = {name: place for place, name in enumerate(now)}
    return next((name for place, name in enumerate(was) if places.get(name, place) != place), None)


def _are_names(value: Any) -> bool:
    listed = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    return listed and len(set(value)) == len(value)


def _resolved(kind: str, spec: PartSpec, where: str) -> dict[str, Any]:
    """A part's config as JSON data, defaults included."""
    cls = find_part(kind, spec, where).cls
    config = cls.Config.of(spec.config, where) if issubclass(cls, Part) else cls.of(spec.config, where)
    data: dict[str, Any] = config.model_dump(mode="json")
    return data
