"""Reading adapter files: weight updates (LoRA), and adapters with their own inputs (ControlNet)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.value import Value
from ldmkit.errors import CompositionError, InputError, SourceError, shown, warn
from ldmkit.models.abilities import share
from ldmkit.models.compose import build
from ldmkit.models.composed import Composed
from ldmkit.models.digests import file_sha256
from ldmkit.models.found import find_part
from ldmkit.models.locate import locate
from ldmkit.models.reading import open_source, part_of
from ldmkit.models.source import Source
from ldmkit.models.spec import ConditionerSpec, Defaults, PartSpec
from ldmkit.models.weights import check_finite
from ldmkit.plugins.hooks import manager

OPTIONS: Mapping[str, Any] = {"scale": 1.0, "scales": {}, "start": 0.0, "end": 1.0}
"""Arguments of `Pipeline.with_lora` that become the adapter's config -> their neutral values."""

ADAPTER = "adapter"
"""`kind` in `Composed.updates` of what `Pipeline.with_adapter_file` read; files of changes have none."""

_READ = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".yaml", ".txt")
"""Suffixes of the files in a folder that decide what is read from it."""

_LONGEST = 40
"""Letters of a part's name, which has 64 at most, without what is put before and behind it: `file-`, `-2-region`."""


@dataclass
class Attachment:
    """What a file holds for a pipeline.

    Args:
        adapter: filled.
        record: its entry in `Composed.updates`, without the name.
        conditioners: slot -> what fills it, filled.
        inputs: slot -> name of the input that it reads.
        shares: slot -> the pipeline's conditioner whose weights it reads.
        defaults: of the pipeline with it, those fields that the file asks for.
    """

    adapter: Adapter
    record: dict[str, Any]
    conditioners: dict[str, Conditioner] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    shares: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)


def read_update(pipeline: Composed, source: str | Path, options: Mapping[str, Any]) -> Attachment:
    """The adapter that a file of changes is for this pipeline, with other options of its config.

    Raises:
        InputError: `path-type`.
        SourceError: not found, no such file, or one for another model.
        WeightsError: `not-finite`, and what filling an adapter raises.
    """
    path, origin = _located(source)
    opened = manager().hook.ldmkit_identify_update(path=path, pipeline=pipeline)
    if opened is None:
        what = "it holds no changes to weights (LoRA or its like) in a known dialect"
        fits = "with_adapter_file (--adapter) for a ControlNet and its like, ldmkit.load for a model"
        raise SourceError("unrecognised", what, where=origin, fits=fits)
    opened.origin = origin
    for reason, count in Counter(opened.report.ignored.values()).items():
        used = len(opened.report.used)
        warn(f"{origin}: {used} of {used + len(opened.report.ignored)} keys are used; {count} are not: {reason}")
    name, spec = next(iter(opened.adapters.items()))
    adapter = _adapter(opened, name, spec, options, pipeline)
    for remark in opened.report.remarks:
        warn(f"{origin}: {remark}")
    return Attachment(adapter, {"source": origin, "sha256": digest_of(path)}, defaults=opened.defaults)


def asked_defaults(own: Defaults, found: Attachment) -> Defaults:
    """A pipeline's defaults with those that a file asks for, which count where they differ from locked ones."""
    asked, locked = dict(found.defaults), own.locked or ()
    if not asked:
        return own
    made = Defaults.of({**own.model_dump(), **asked, "locked": None}, "defaults")
    for name in locked:
        if name in asked and getattr(made, name) != getattr(own, name):
            before, now = (_words(getattr(values, name)) for values in (own, made))
            warn(f"{found.record['source']}: {name} was locked to {before} by the model or a file before, now to {now}")
    kept = tuple(dict.fromkeys((*locked, *asked.get("locked", ()))))
    return made.model_copy(update={"locked": kept or None})


def _words(value: PartSpec | int) -> str:
    return f"{value.type} {value.config or ''}".strip() if isinstance(value, PartSpec) else str(value)


def read_adapter(pipeline: Composed, source: str | Path, options: Mapping[str, Any]) -> Attachment:
    """The adapter in a file and the conditioners of its slots, with other options of its config.

    Raises:
        InputError: `path-type`; `adapter-name`: there are several.
        SourceError: not found; `no-adapter`; one for another model.
        SpecError: options that the adapter's config has not.
        CompositionError: `empty-slot`: the file does not say what fills a slot that must be filled.
        WeightsError: `not-finite`, and what filling an adapter raises.
    """
    path, origin = _located(source)
    opened = manager().hook.ldmkit_identify_adapter(path=path, pipeline=pipeline, options=options)
    opened = _any_source(source, options) if opened is None else opened
    opened.origin = origin
    offered = opened.adapters
    if not offered:
        raise SourceError("no-adapter", "there is no adapter in it", where=origin)
    if len(offered) > 1:
        what, fits = f"there are {len(offered)} adapters in it", "ldmkit.load_adapter(source, name=...), with_adapter"
        raise InputError("adapter-name", what, where=origin, fits=fits)
    name, spec = next(iter(offered.items()))
    read = find_part("adapter", spec, f"adapters.{name}").cls.Config.of(spec.config, f"adapters.{name}.config")
    asked = {key: value for key, value in options.items() if key not in opened.files}
    adapter = _adapter(opened, name, spec, asked, pipeline)
    record: dict[str, Any] = {"kind": ADAPTER, "source": origin, "sha256": digest_of(path), "read": plain_config(read)}
    files = {key: {"source": locate(options[key])[1], "sha256": digest_of(file)} for key, file in opened.files.items()}
    found = Attachment(adapter, record | ({"files": files} if files else {}))
    _add_conditioners(found, opened, name, pipeline)
    return found


def plain_config(config: Value) -> dict[str, Any]:
    """A config as JSON data."""
    return config.model_dump(mode="json")


def _add_conditioners(found: Attachment, opened: Source, name: str, pipeline: Composed) -> None:
    taken = {*pipeline.wiring, *pipeline.inputs, *pipeline.adapters}
    for slot, (own, part) in opened.conditioners_of(name).items():
        found.conditioners[slot] = _conditioner(opened, own, part, pipeline)
        if part is None and own.shares is not None:
            share(found.conditioners[slot], pipeline.conditioners[own.shares])
            found.shares[slot] = own.shares
        found.inputs[slot] = free_name(own.input or slot, taken)
        taken.add(found.inputs[slot])
    for slot, declared in found.adapter.slots.items():
        if declared.required and slot not in found.conditioners:
            what = f"the file does not say what fills the slot {slot!r} ({declared.kind}, dim {declared.dim})"
            fits = "ldmkit.load_adapter, and with_adapter with a conditioner for it"
            raise CompositionError("empty-slot", what, where=opened.origin, fits=fits)


def _conditioner(opened: Source, spec: ConditionerSpec, part: str | None, pipeline: Composed) -> Conditioner:
    if part is not None:
        filled: Conditioner = _filled(opened, "conditioner", spec, part, pipeline)
        return filled
    own, bare = pipeline.denoiser, PartSpec(**spec.model_dump(include=set(PartSpec.model_fields)))
    built: Conditioner = build("conditioner", bare, f"conditioners.{spec.input}")
    return built.to(device=own.device, dtype=own.dtype).eval().requires_grad_(False)


def _any_source(source: str | Path, options: Mapping[str, Any]) -> Source:
    """The reader for the file of an adapter that is the same for any pipeline."""
    config = options.get("config")
    opened = open_source(source, config=config)
    if config is not None:
        opened.files["config"] = Path(config)
    return opened


def _located(source: object) -> tuple[Path, str]:
    if not isinstance(source, str | Path):
        raise InputError("path-type", f"got {shown(source)}", where="source", fits="a path, or a name on the hub")
    return locate(source, None)


def _adapter(opened: Source, name: str, spec: PartSpec, options: Mapping[str, Any], pipeline: Composed) -> Adapter:
    changed = spec.model_copy(update={"config": {**spec.config, **options}})
    adapter: Adapter = _filled(opened, "adapter", changed, f"adapters.{name}", pipeline)
    return adapter


def _filled(opened: Source, kind: str, spec: PartSpec, path: str, pipeline: Composed) -> Any:
    """A part with its weights, which are finite, where the pipeline's denoiser is."""
    own = pipeline.denoiser
    part = part_of(opened, kind, spec, path, device=own.device, dtype=own.dtype, mapped=False)
    check_finite(part, opened.origin)
    return part.eval().requires_grad_(False)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files of weights and configs with their names."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(child for child in path.rglob("*") if child.is_file() and child.suffix in _READ)
    listed = "\n".join(f"{file_sha256(child)} {child.relative_to(path).as_posix()}" for child in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def free_name(source: str | Path, taken: Collection[str]) -> str:
    """A name for what a file holds: that of the file, with a number where it is taken."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(source).stem).strip("-")[:_LONGEST]
    base = base if base[:1].isalpha() else f"file-{base}".strip("-_")
    names = (base if number == 1 else f"{base}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
