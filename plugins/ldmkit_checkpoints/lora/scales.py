"""The factor of an update: alpha and the rank, as the file, its metadata or peft's config says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ldmkit import SourceError

METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's config in a file's metadata, its fields with the network before: `unet.lora_alpha`."""

_SIMPLE = re.compile(r"\^?(?:[\w|-]|\\\.|\.[*+]?)+\$?")
"""Patterns that cannot take long: a file's may be anyone's."""

TOWERS = {"denoiser": "unet", "text-1": "text_encoder", "text-2": "text_encoder_2", "conditioners": "conditioners"}
"""Network -> what its keys and fields begin with."""

_PREFIXES = tuple(f"{prefix}." for prefix in TOWERS.values())
_PEFT_ALPHA = 8
"""peft's own, for a config that does not say it."""


class Scales:
    """What is said of alpha beside the tensors.

    Args:
        configs: network ("any" for all) -> peft's config.
        where: for errors.
    """

    def __init__(self, configs: Mapping[str, Mapping[str, Any]], where: str) -> None:
        self._configs, self._where = configs, where

    @property
    def configs(self) -> list[Mapping[str, Any]]:
        """peft's configs, one a network."""
        return list(self._configs.values())

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str], where: str) -> Scales:
        """From a safetensors file's metadata.

        Raises:
            SourceError: `metadata`: it is not what diffusers writes there.
        """
        if METADATA not in metadata:
            return cls({}, where)
        try:
            fields = json.loads(metadata[METADATA])
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise SourceError("metadata", f"{METADATA!r} is no JSON object", where=where, fits="what diffusers writes")
        configs: dict[str, dict[str, Any]] = {}
        for tower, prefix in TOWERS.items():
            own = {
                key.removeprefix(f"{prefix}."): value for key, value in fields.items() if key.startswith(f"{prefix}.")
            }
            if own:
                configs[tower] = own
        rest = {key: value for key, value in fields.items() if not key.startswith(_PREFIXES)}
        if rest and configs:
            what = f"{METADATA!r} has the field {next(iter(rest))!r} of none of {', '.join(TOWERS.values())}"
            raise SourceError("metadata", what, where=where, fits="what diffusers writes")
        if rest:  # of `save_lora_adapter`: one network, which the keys do not name either
            configs["any"] = rest
        return cls(configs, where)

    def factor(self, tower: str, path: str, rank: int | None, alpha: float | None) -> float:
        """What a change is multiplied with.

        Args:
            rank: of the change; None: nothing of it is factored.
            alpha: that stands beside the tensors, if any.
        """
        config = self._configs.get(tower, self._configs.get("any", {}))
        if alpha is None and (said := self._alpha(config, path)) is not None:
            alpha = said
            rank = self._rank(config, path) if rank is None else rank  # peft's LoKr has a rank where it needs none
        if alpha is None or not rank:
            return 1.0
        return alpha / math.sqrt(rank) if self._flag(config, "use_rslora") else alpha / rank

    def needs_lengths(self, tower: str) -> bool:
        """Whether peft's config says that every layer has DoRA's lengths."""
        return self._flag(self._configs.get(tower, self._configs.get("any", {})), "use_dora")

    def _flag(self, config: Mapping[str, Any], name: str) -> bool:
        value = config.get(name, False)
        if value is not None and not isinstance(value, bool):
            raise SourceError("metadata", f"{name!r} is {value!r}", where=self._where, fits="true or false")
        return bool(value)

    def _alpha(self, config: Mapping[str, Any], path: str) -> float | None:
        field = next((name for name in ("lora_alpha", "alpha") if config.get(name) is not None), None)
        said = self._of_pattern(config, "alpha_pattern", path)
        if said is not None or not config:
            return said
        return _PEFT_ALPHA if field is None else self._number(config, field, path)

    def _rank(self, config: Mapping[str, Any], path: str) -> float:
        said = self._of_pattern(config, "rank_pattern", path)
        return self._number(config, "r", path) if said is None else said

    def _of_pattern(self, config: Mapping[str, Any], field: str, path: str) -> float | None:
        """The number of the first pattern that a layer's path fits, as peft matches them."""
        patterns = config.get(field) or {}
        if not isinstance(patterns, Mapping):
            raise SourceError("metadata", f"{field!r} is {patterns!r}", where=self._where, fits="a JSON object")
        for pattern in patterns:
            if not _SIMPLE.fullmatch(pattern) or sum(map(pattern.count, "*+")) > 2:
                what = f"the pattern {pattern!r} in {field!r} is none that peft writes"
                raise SourceError("metadata", what, where=self._where, fits="names of modules, with .* between them")
            if re.match(rf"(.*\.)?({pattern})$", path):
                return self._number(patterns, pattern, path)
        return None

    def _number(self, fields: Mapping[str, Any], name: str, path: str) -> Any:
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SourceError("metadata", f"{name!r} for {path!r} is {value!r}", where=self._where, fits="a number")
        if value <= 0:
            what = f"{name!r} for {path!r} is {value!r}"
            raise SourceError("alpha-range", what, where=self._where, fits="a number above 0")
        return value
