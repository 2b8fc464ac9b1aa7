"""What reading an original yaml ends in: how each part is configured, named and found in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.vq import VQConfig
from torch import Tensor

from ldmkit.errors import SourceError
from ldmkit.models.spec import PartSpec
from ldmkit_checkpoints.compvis.vae_config import first_stage_from_compvis
from ldmkit_checkpoints.compvis.vae_keys import kl_compvis_keys, vq_compvis_keys
from ldmkit_checkpoints.keys import KeyMap, prefixed
from ldmkit_checkpoints.unread import ignorable_vae_key

UNREAD_BUFFERS = {
    "logvar": "training only: log-variance of the loss",
    "lvlb_weights": "training only: weights of the variational bound",
    "model_ema.decay": "bookkeeping of the averaged weights",
    "model_ema.num_updates": "bookkeeping of the averaged weights",
    **dict.fromkeys(
        ("ddim_sigmas", "ddim_alphas", "ddim_alphas_prev", "ddim_sqrt_one_minus_alphas"),
        "left over from a sampler",
    ),
}


@dataclass(frozen=True)
class PartPlan:
    """One part: what to build, and where its tensors are (published keys, prefixes included).

    Args:
        averaged: averaged copies of these tensors may stand in the file under `shadow` names.
    """

    spec: PartSpec
    keymap: KeyMap = field(default_factory=dict)
    averaged: bool = False

    def published(self) -> set[str]:
        """Every published key the part is read from."""
        return {key for entry in self.keymap.values() for key in entry.keys}


@dataclass
class CheckpointPlan:
    """A whole checkpoint.

    Args:
        parts: by part path, `codec` first; the first stage alone where there is no `process`.
        ignore: why a key that no part takes may stay unread; None if it may not.
        buffers: what schedule buffers in the file must hold.
        unscaled: what they may hold as well, where the schedule is rescaled when the model is read.
        defaults: of the pipeline spec.
    """

    parts: dict[str, PartPlan]
    ignore: Callable[[str], str | None]
    process: PartSpec | None = None
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    unscaled: Mapping[str, Tensor] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    assumption: str | None = None


def shadow(key: str) -> str:
    """Name of the averaged copy of a parameter: the dots are removed."""
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def plan_codec(
    section: Mapping[str, Any],
    scale: float | None,
    prefix: str,
    where: str,
    averaged: bool = False,
    upcast: bool = False,
) -> PartPlan:
    """The codec of a `first_stage_config`; `scale` multiplies its raw latents; None: no one knows it."""
    kind, config = first_stage_from_compvis(section, where)
    if kind == "identity":
        if scale not in (1, None):
            raise SourceError("unsupported", f"scale_factor {scale} of pictures", where=where, fits="1")
        return PartPlan(PartSpec(type="identity"))
    if scale != 1:
        config = {**config, "scale": scale}
    if upcast:
        config = {**config, "force_upcast": True}
    keymap = kl_compvis_keys(KLConfig.of(config)) if kind == "kl" else vq_compvis_keys(VQConfig.of(config))
    return PartPlan(PartSpec(type=kind, config=config), prefixed(keymap, foreign=prefix), averaged)


def codec_shape(plan: PartPlan) -> tuple[int, int]:
    """(latent channels, factor) of a planned codec."""
    if plan.spec.type == "identity":
        return int(plan.spec.config.get("channels", 3)), 1
    config = (KLConfig if plan.spec.type == "kl" else VQConfig).of(plan.spec.config)
    return config.latent_channels, config.factor


def plan_first_stage(section: Mapping[str, Any], where: str) -> CheckpointPlan:
    """A file that holds a first stage alone, keys without prefix."""
    kind, config = first_stage_from_compvis(section, where)
    scale, assumption = _own_scale(kind, config)
    # in float16 SDXL's overflows, and which of the two it is cannot be seen
    codec = plan_codec(section, scale, "", where, averaged=True, upcast=assumption is not None)
    known = {shadow(key) for key in codec.published()}

    def ignore(key: str) -> str | None:
        if key.startswith("model_ema.loss"):
            return "training only: perceptual loss and discriminator"
        if key.startswith("model_ema.") and key not in known and key not in UNREAD_BUFFERS:
            return None
        return ignorable_vae_key(key) or UNREAD_BUFFERS.get(key)

    return CheckpointPlan({"codec": codec}, ignore, assumption=assumption)


def _own_scale(kind: str, config: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """Scale of a first stage whose own file says none, and what was assumed to know it.

    Published VQ models were trained on, and diffused over, latents as they are (1). Of KL models no scale follows from
    the weights: each diffusion model measured its own.
    """
    if kind != "kl":
        return 1.0, None
    return (SD_SCALE, _ASSUMED) if KLConfig.of(config) == SD_KL else (None, None)


SD_KL = KLConfig(widths=(128, 256, 512, 512), embed_dim=4)
"""The shapes of Stable Diffusion's first stage, and of SDXL's."""


SD_SCALE = 0.18215


_ASSUMED = (
    "its file does not say the scale of its latents, and its shapes are Stable Diffusion's: 0.18215 was assumed. "
    "SDXL's codec has the same shapes and 0.13025: say which by scale="
)
