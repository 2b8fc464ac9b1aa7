"""What a file of changes is, for people: its layers, its base, the words that call it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ldmkit_adapters.lora.forms import rank_of

from ldmkit_checkpoints.lora.bases import base_of, named_base_of, prediction_of
from ldmkit_checkpoints.lora.dialects import named, other_network
from ldmkit_checkpoints.lora.few_steps import stated_method
from ldmkit_checkpoints.lora.files import Found, find_update
from ldmkit_checkpoints.lora.said import Said

_TOWERS = {"denoiser": "U-Net", "text-1": "text encoder", "text-2": "second text encoder", "any": "a network not named"}


def describe(path: Path) -> dict[str, str] | None:
    """Lines of name and text; None where a path holds no changes to weights.

    Raises:
        SourceError: it cannot be read.
    """
    found = find_update(path)
    if found is None:
        return None
    said = found.said
    facts: dict[str, str | None] = {"kind": "changes to weights (LoRA or its like)", **_layers(found), **_words(said)}
    return {name: text for name, text in facts.items() if text}


def _layers(found: Found) -> dict[str, str]:
    groups: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    others: Counter[str] = Counter()
    for key, tensor in found.tensors.items():
        if (other := other_network(key)) is not None:
            others[other] += 1
        elif (name := named(key)) is not None:
            groups.setdefault((name.tower, name.path), {})[name.role] = tensor.shape
    ranks = Counter(rank for shapes in groups.values() if (rank := rank_of(shapes)) is not None)
    towers = Counter(tower for tower, _ in groups)
    listed = [f"{count} of the {_TOWERS[tower]}" for tower, count in towers.items()]
    listed += [f"{count} keys of {other}" for other, count in others.items()]
    return {
        "layers": ", ".join(listed),
        "ranks": ", ".join(
            f"{rank} ({count} layers)" if len(ranks) > 1 else str(rank) for rank, count in ranks.most_common(8)
        ),
    }


def _words(said: Said) -> dict[str, str | None]:
    base, prediction, zero = (
        base_of(said) or named_base_of(said),
        prediction_of(said),
        said.flag("ss_zero_terminal_snr"),
    )
    network = " ".join(filter(None, (said.text("ss_network_module"), said.text("ss_network_args"))))
    return {
        "title": said.text("modelspec.title", "ss_output_name"),
        "base": f"{base[0]} ({base[1]})" if base else said.text("ss_base_model_version", "modelspec.architecture"),
        "predicts": f"{prediction[0]} ({prediction[1]})" if prediction else None,
        "zero terminal SNR": None if zero is None else ("yes" if zero else "no"),
        "trained by": network,
        "made for few steps": stated_method(said),
        "trigger phrases": "; ".join(said.triggers),
        "frequent tags": ", ".join(f"{tag} ({count})" for tag, count in said.frequent()),
        "usage": said.text("modelspec.usage_hint"),
    }
