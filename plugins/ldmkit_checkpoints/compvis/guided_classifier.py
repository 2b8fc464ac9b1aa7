"""Classifiers of guided-diffusion: the first half of a U-Net and a pooled head, from their file and flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmkit_denoisers.classifier import UNetClassifierConfig

from ldmkit import LazyTensor, PartSpec, PipelineSpec, SourceError
from ldmkit.models.source import Source
from ldmkit_checkpoints.compvis.guided import MULTIPLIERS, assumed, attended, flags_of_published, network, process_of
from ldmkit_checkpoints.compvis.guided_flags import SECTION, Flags, read_flags
from ldmkit_checkpoints.compvis.unet_keys import encoder_compvis
from ldmkit_checkpoints.compvis.yaml_config import read_yaml
from ldmkit_checkpoints.config_fields import checked, known_only
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import Conversion, KeyMap, as_linear, as_linear_1d, layer, renamed

_HEAD = 64
"""Channels per head of every attention of a classifier."""

_POOLS = {"attention": "out.2.c_proj.weight", "adaptive": "out.3.weight"}
"""`classifier_pool` -> key of the last layer, whose rows are classes."""


class GuidedClassifier(Source):
    """The source of a classifier's file.

    Args:
        tensors: lazy tensors by the file's keys.
        given: the yaml's section of flags.
        origin: the file; `where`: the place of the flags, for errors.

    Raises:
        SourceError: unknown or unsupported flags; `flag-mismatch`: another `classifier_pool` than the file's.
    """

    takes = frozenset({"config"})

    def __init__(self, tensors: Mapping[str, LazyTensor], given: Any, origin: str, where: str) -> None:
        super().__init__(origin)
        flags, named = read_flags(given, where)
        self.inventory = Inventory(tensors, self.report, origin)
        self.config = _config(flags, named, tensors, where)
        self.report.notes += assumed(flags, named, origin, heads=False)
        self._taken: Mapping[str, LazyTensor] | None = None

    @property
    def spec(self) -> PipelineSpec:
        fits = "ldmkit.load_classifier"
        raise SourceError("classifier-only", "it contains only a classifier", where=self.origin, fits=fits)

    @property
    def classifier_spec(self) -> PartSpec:
        return PartSpec(type="unet-encoder", config=self.config.model_dump(mode="json", exclude_defaults=True))

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """The classifier's tensors; every key of the file must be accounted for."""
        if self._taken is None:
            self._taken = self.inventory.take(part, _keys(self.config))
            self.inventory.finish()
        return self._taken


def open_classifier(tensors: Mapping[str, LazyTensor], path: Path, config: Path | None) -> GuidedClassifier:
    """The source of a classifier's file, with the flags of a yaml or those published for its name.

    Raises:
        SourceError: `config-needed`; `missing-section`: a yaml of something else.
    """
    if config is None:
        given, where = flags_of_published(path, tensors), f"{path}: flags of its name"
    else:
        given, where = read_yaml(config), f"{config}: {SECTION}"
        if SECTION not in given:
            what = f"it has no {SECTION!r}, and {path.name} is a classifier of guided-diffusion"
            raise SourceError("missing-section", what, where=str(config), fits=f"{SECTION}: flags of its script")
        known_only(given, (SECTION,), str(config))
    return GuidedClassifier(tensors, given[SECTION], str(path), where)


def _config(flags: Flags, named: frozenset[str], tensors: Mapping[str, LazyTensor], where: str) -> UNetClassifierConfig:
    pool, place = flags.classifier_pool, f"{where}.classifier_pool"
    if pool not in _POOLS:
        raise SourceError("unsupported", f"classifier_pool {pool!r}", where=place, fits=" or ".join(_POOLS))
    last = tensors.get(_POOLS[pool])
    if last is None:
        what = f"classifier_pool says {pool}, but the file has no {_POOLS[pool]!r}"
        raise SourceError("flag-mismatch", what, where=place, fits=" or ".join(set(_POOLS) - {pool}))
    if flags.image_size not in MULTIPLIERS:
        fits = ", ".join(map(str, MULTIPLIERS))
        raise SourceError("unsupported", f"image_size {flags.image_size}", where=f"{where}.image_size", fits=fits)
    width, mult = flags.classifier_width, MULTIPLIERS[flags.image_size]
    name = "classifier_attention_resolutions"
    levels = attended(getattr(flags, name), name, flags.image_size, len(mult), where)
    unet = network({
        "channels": 3,
        "widths": tuple(int(width * factor) for factor in mult),
        "blocks": flags.classifier_depth,
        "attention": tuple("self" if there else "none" for there in levels),
        "mid": "self",
        "head_dim": _HEAD,
        "time_dim": 4 * width,
        "time_code": width,
        "scale_shift": flags.classifier_use_scale_shift_norm,
        "residual_resample": flags.classifier_resblock_updown,
    }, where)  # fmt: skip
    native: dict[str, Any] = {"unet": unet, "classes": last.shape[0], "process": process_of(flags, named, where)}
    if pool == "attention":
        side = flags.image_size >> (len(mult) - 1)
        native |= {"pool": "positions", "pool_heads": unet.widths[-1] // _HEAD, "pool_side": side}
    else:
        native |= {"pool": "mean", "pool_heads": 1}
    return UNetClassifierConfig.of(checked(UNetClassifierConfig, native, where))


def _keys(config: UNetClassifierConfig) -> KeyMap:
    keymap = encoder_compvis(config.unet) | layer("norm_out", "out.0")
    if config.pool == "mean":
        return keymap | {"head.weight": as_linear("out.3.weight"), "head.bias": renamed("out.3.bias")}
    positions = Conversion(("out.2.positional_embedding",), lambda p: p.t(), lambda p: (p.t(),))
    for native, foreign in (("pool.qkv", "out.2.qkv_proj"), ("pool.out", "out.2.c_proj")):
        keymap[f"{native}.weight"] = as_linear_1d(f"{foreign}.weight")
        keymap[f"{native}.bias"] = renamed(f"{foreign}.bias")
    return keymap | {"pool.positions": positions}
