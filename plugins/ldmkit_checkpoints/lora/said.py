"""What a file of changes says of itself: its header's metadata, and the files that a folder of one such file has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ldmkit import SourceError, read_json
from ldmkit.models.weights import read_metadata

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_GENERIC = ("pytorch_lora_weights", "adapter_model", "lora", "model", "diffusion_pytorch_model")
_CARD_BYTES = 2**20


@dataclass(frozen=True)
class Said:
    """What is said of a file, by whom.

    Args:
        metadata: of the safetensors header.
        card: the YAML at the beginning of README.md, as the hub's model cards have it.
        scheduler: scheduler_config.json.
        config: adapter_config.json of peft.
        name: of the file, and of its folder where the file's says nothing.
        unread: why something beside it could not be read.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    name: str = ""
    unread: tuple[str, ...] = ()

    def text(self, *keys: str) -> str:
        """The first of these keys of the metadata that says something."""
        found = (self.metadata.get(key, "").strip() for key in keys)
        return next((text for text in found if text and text.lower() not in ("none", "null")), "")

    def flag(self, key: str) -> bool | None:
        """A flag of the metadata; None: not said."""
        return {"true": True, "false": False, "1": True, "0": False}.get(self.metadata.get(key, "").lower())

    @property
    def triggers(self) -> list[str]:
        """Words that call what was learned."""
        found = [self.text("modelspec.trigger_phrase"), self.card.get("instance_prompt")]
        return list(dict.fromkeys(text.strip() for text in found if isinstance(text, str) and text.strip()))

    @property
    def tags(self) -> list[str]:
        """Tags of the file itself, in lower case."""
        listed = self.card.get("tags") or []
        words = [*self.text("modelspec.tags").split(","), *(listed if isinstance(listed, list) else [])]
        return [word.strip().lower() for word in words if isinstance(word, str) and word.strip()]

    def frequent(self, count: int = 10) -> list[tuple[str, int]]:
        """The most frequent tags of the captions that it was trained with (`ss_tag_frequency`)."""
        try:
            groups = json.loads(self.metadata.get("ss_tag_frequency", "{}"))
        except (ValueError, RecursionError):
            return []
        total: Counter[str] = Counter()
        for group in groups.values() if isinstance(groups, dict) else ():
            for tag, number in group.items() if isinstance(group, dict) else ():
                if type(number) is int:
                    total[str(tag).strip()] += number
        return total.most_common(count)


def said_of(path: Path, folder: Path | None, config: Mapping[str, Any] | None = None) -> Said:
    """What is said of a file.

    Args:
        folder: that was named in its place. A README.md or scheduler_config.json beside a file is of that file where it
            is the only one with weights.
        config: adapter_config.json, which has been read.
    """
    beside = path.parent
    alone = folder is not None or _alone_in(beside)
    card: Mapping[str, Any] = {}
    scheduler, unread = None, []
    if alone:
        try:
            card = _card(beside / "README.md")
        except (ValueError, OSError) as error:
            unread.append(f"its README.md cannot be read ({type(error).__name__})")
        for file in (beside / "scheduler_config.json", beside / "scheduler" / "scheduler_config.json"):
            if scheduler is None and file.is_file():
                scheduler = _mapping(file)
        if config is None and (file := beside / "adapter_config.json").is_file():
            config = _mapping(file)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    return Said(metadata, card, scheduler, config, _name(path, alone), tuple(unread))


def _alone_in(folder: Path) -> bool:
    """Whether a folder has one file of weights; no, where it may not be listed."""
    try:
        return sum(other.suffix in _WEIGHTS for other in folder.iterdir()) == 1
    except OSError:
        return False


def _name(path: Path, alone: bool) -> str:
    if path.stem.lower() not in _GENERIC or not alone:
        return path.stem
    hub = [part.removeprefix("models--") for part in path.parts if part.startswith("models--")]
    return f"{(hub or [path.resolve().parent.name])[-1]}/{path.stem}"


def _mapping(file: Path) -> Mapping[str, Any]:
    data = read_json(file)
    if not isinstance(data, dict):
        raise SourceError("metadata", "it is no JSON object", where=str(file), fits="what diffusers or peft write")
    return data


def _card(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8") as opened:
        text = opened.read(_CARD_BYTES)
    if not text.startswith("---"):
        return {}
    try:
        data = yaml.safe_load(text[3:].partition("\n---")[0])
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return data if isinstance(data, dict) else {}
