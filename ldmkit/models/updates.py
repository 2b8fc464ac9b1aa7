"""A file of changes to a pipeline's weights becomes an adapter."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from ldmkit.contracts.adapter import Adapter
from ldmkit.errors import InputError, SourceError, WeightsError, shown, warn
from ldmkit.models.composed import Composed
from ldmkit.models.digests import file_sha256
from ldmkit.models.locate import locate
from ldmkit.models.reading import part_of
from ldmkit.plugins.hooks import manager

OPTIONS: Mapping[str, Any] = {"scale": 1.0, "scales": {}, "start": 0.0, "end": 1.0}
"""Arguments of `Pipeline.with_lora` that its adapter's config has too, and what changes nothing."""


def read_update(pipeline: Composed, source: str | Path, options: Mapping[str, Any]) -> tuple[Adapter, dict[str, str]]:
    """The adapter that a file of changes is for this pipeline, with other options of its config; and where it was read.

    Raises:
        InputError: `path-type`.
        SourceError: not found, no such file, or one for another model.
        WeightsError: `not-finite`, and what filling an adapter raises.
    """
    if not isinstance(source, str | Path):
        raise InputError("path-type", f"got {shown(source)}", where="source", fits="a path, or a name on the hub")
    path, origin = locate(source, None)
    opened = manager().hook.ldmkit_identify_update(path=path, pipeline=pipeline)
    if opened is None:
        what = "it holds no changes to weights (LoRA or its like) in a known dialect"
        fits = "ldmkit.load_adapter for a ControlNet, ldmkit.load for a model"
        raise SourceError("unrecognised", what, where=origin, fits=fits)
    opened.origin = origin
    for reason, count in Counter(opened.report.ignored.values()).items():
        used = len(opened.report.used)
        warn(f"{origin}: {used} of {used + len(opened.report.ignored)} keys are used; {count} are not: {reason}")
    (name, spec), own = next(iter(opened.adapters.items())), pipeline.denoiser
    spec = spec.model_copy(update={"config": {**spec.config, **options}})
    adapter: Adapter = part_of(
        opened, "adapter", spec, f"adapters.{name}", device=own.device, dtype=own.dtype, mapped=False
    )
    for key, tensor in adapter.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError("not-finite", f"{key!r} holds NaN or infinity", where=origin)
    return adapter.eval().requires_grad_(False), {"source": origin, "sha256": digest_of(path)}


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's tensor files with their names."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(child for child in path.iterdir() if child.is_file() and child.suffix in (".safetensors", ".bin"))
    listed = "\n".join(f"{file_sha256(child)} {child.name}" for child in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def free_name(source: str | Path, taken: Collection[str]) -> str:
    """A name for what a file holds: that of the file, with a number where it is taken."""
    base = re.sub(r"[^\w-]+", "-", Path(source).stem).strip("-") or "lora"
    names = (base if number == 1 else f"{base}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
