"""Which living pipelines a module is a part of: what is done to it in place is done to all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from ldmkit.contracts.part import Part
from ldmkit.errors import warn

_owners: WeakKeyDictionary[nn.Module, WeakSet[object]] = WeakKeyDictionary()


def note_owner(owner: object, parts: Mapping[str, nn.Module]) -> None:
    """Remember, for as long as it lives, that these are parts of `owner`."""
    for part in parts.values():
        _owners.setdefault(part, WeakSet()).add(owner)


def remark_shared(parts: Mapping[str, Part], dtype: torch.dtype, together: Collection[object]) -> None:
    """Warn of a conversion of parts that other living pipelines than those of `together` have as well."""
    shared = [path for path, part in parts.items() if set(_owners.get(part, ())) - set(together)]
    changed = [path for path in shared if _converts(parts[path], dtype)]
    if changed:
        what = f"to({dtype}) also converts {', '.join(changed)} of another pipeline, which shares modules with this one"
        warn(f"{what}; a pipeline that is loaded again has modules of its own")


def _converts(part: Part, dtype: torch.dtype) -> bool:
    return any(t.is_floating_point() and t.dtype != part.held_dtype(dtype) for t in part.state_dict().values())
