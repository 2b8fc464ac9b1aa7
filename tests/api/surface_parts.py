"""Names that files and adapters rely on: slots, ports and tensors of in-tree parts, built from their examples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from surface_fields import in_tree

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner import Conditioner
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.judges import Classifier
from ldmkit.contracts.sampler import Sampler
from ldmkit.contracts.signals import Slot
from ldmkit.errors import LdmkitError
from ldmkit.models.meta import on_meta
from ldmkit.plugins.catalogue import load_entry
from ldmkit.plugins.kinds import MODULES


def parts() -> list[str]:
    """One line a fact; modules are built without data. Later examples add what the ones before them have not."""
    lines: list[str] = []
    for entry in in_tree():
        path, cls = f"{entry.kind}:{entry.name}", load_entry(entry)
        if not cls.examples:
            lines.append(f"{path}: has no example")
        known: set[str] = set()
        for number, example in enumerate(cls.examples):
            found = list(_facts(entry.kind, cls, example.config))
            new = [fact for fact in found if _name(fact) not in known]
            known |= {_name(fact) for fact in new}
            if not number or new:
                label = f"{path} ({number + 1})" if number else path
                lines.append(f"{label}: from {json.dumps(_plain(example.config), sort_keys=True)}")
                lines += [f"{label} {fact}" for fact in new]
    return lines


def _name(fact: str) -> str:
    """What a fact is about, without sizes: `tensor mid.weight`, `slot context`."""
    return " ".join(fact.split()[:2]).rstrip(":")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _facts(kind: str, cls: Any, config: Mapping[str, Any]) -> Iterator[str]:
    try:
        if kind == "stage":  # its config and what it trains: parts have entries of their own
            part = cls.Config.of(config)
        elif kind not in MODULES:
            part = cls.of(config)
        else:
            with on_meta():
                part = cls(config)
    except LdmkitError as error:
        yield f"cannot be built: {error.code}"
        return
    yield from _declared(part)
    if kind in MODULES:
        yield from sorted(f"tensor {name} {tuple(tensor.shape)}" for name, tensor in part.state_dict().items())


def _declared(part: Any) -> Iterator[str]:
    if isinstance(part, Codec):
        yield f"channels {part.channels}, factor {part.factor}, multiple {part.multiple}"
    elif isinstance(part, Denoiser):
        yield f"channels {part.channels}, smallest {part.smallest}, plans {', '.join(part.plans)}"
        yield from _slots(part.slots)
        yield from sorted(f"port {name}" for name in part.ports)
    elif isinstance(part, Conditioner):
        yield f"makes {part.kind} of dim {part.dim}{'' if part.has_null else ', input required'}"
    elif isinstance(part, Adapter):
        yield from _slots(part.slots)
        yield from sorted(f"taps {name}" for name in part.taps("name"))
    elif isinstance(part, Classifier):
        yield f"channels {part.channels}, classes {part.classes}"
    elif isinstance(part, Sampler):
        yield f"order {part.order}, evaluations of 10 steps {part.evaluations(10)}"


def _slots(slots: Mapping[str, Slot]) -> Iterator[str]:
    for name, slot in sorted(slots.items()):
        need = "required" if slot.required else "optional"
        yield f"slot {name}: {slot.kind} of dim {slot.dim}, joined by {slot.join}, {need}"
