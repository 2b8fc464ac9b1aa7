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

TOWERS = {"denoiser": "unet", "text-1": "text_encoder", "text-2": "text_encoder_2", "conditioners": "conditioners"}
"""Network -> what its keys and fields begin with."""


class Scales:
    """What is said of alpha beside the tensors.

    Args:
        configs: network ("any" for all) -> peft's config.
        where: for errors.
    """

    def __init__(self, configs: Mapping[str, Mapping[str, Any]], where: str) -> None:
        self._configs, self._where = configs, where

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
        except ValueError:
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
            rank = (
                self._number(config, "r", path) if rank is None else rank
            )  # peft's LoKr has a rank where it needs none
        if alpha is None or not rank:
            return 1.0
        return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank

    def _alpha(self, config: Mapping[str, Any], path: str) -> float | None:
        patterns = config.get("alpha_pattern") or {}
        for pattern in patterns:
            if re.match(rf"(.*\.)?({pattern})$", path):
                return self._number(patterns, pattern, path)
        for field in ("lora_alpha", "alpha"):
            if config.get(field) is not None:
                return self._number(config, field, path)
        return None

    def _number(self, fields: Mapping[str, Any], name: str, path: str) -> Any:
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SourceError("metadata", f"{name!r} for {path!r} is {value!r}", where=self._where, fits="a number")
        return value
