"""The plan made from an original yaml: the config of each part and the location of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.vq import VQConfig
from torch import Tensor

from ldmkit import PartSpec, SourceError
from ldmkit_checkpoints.compvis.vae_config import first_stage_from_compvis
from ldmkit_checkpoints.compvis.vae_keys import kl_compvis_keys, vq_compvis_keys
from ldmkit_checkpoints.compvis.yaml_config import params_of
from ldmkit_checkpoints.keys import KeyMap, prefixed
from ldmkit_checkpoints.singlefile.evidence import MARKERS
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
    """One part: its spec, and its tensors by published keys, prefixes included.

    Args:
        averaged: the file may hold EMA copies of these tensors under `shadow` names.
    """

    spec: PartSpec
    keymap: KeyMap = field(default_factory=dict)
    averaged: bool = False

    def published(self) -> set[str]:
        """All published keys of the part."""
        return {key for entry in self.keymap.values() for key in entry.keys}


@dataclass
class CheckpointPlan:
    """The plan for a complete checkpoint.

    Args:
        codec: without a `denoiser` and a `process` it is a first stage alone.
        ignore: the reason to ignore a key that no part uses; None if there is none.
        buffers: expected values of the schedule buffers in the file.
        unscaled: other allowed values, if the schedule is rescaled to zero terminal SNR on loading.
        defaults: defaults of the pipeline spec.
        ema: EMA (True) or raw (False) weights if the file has both, as the original does; None: not specified.
    """

    codec: PartPlan
    ignore: Callable[[str], str | None]
    denoiser: PartPlan | None = None
    conditioners: Mapping[str, PartPlan] = field(default_factory=dict)
    adapters: Mapping[str, PartPlan] = field(default_factory=dict)
    process: PartSpec | None = None
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    unscaled: Mapping[str, Tensor] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    assumption: str | None = None
    ema: bool | None = None

    @property
    def parts(self) -> dict[str, PartPlan]:
        """All parts by path (`codec`, `conditioners.text`, ...)."""
        found = {"codec": self.codec} | ({} if self.denoiser is None else {"denoiser": self.denoiser})
        found |= {f"conditioners.{name}": plan for name, plan in self.conditioners.items()}
        return found | {f"adapters.{name}": plan for name, plan in self.adapters.items()}


def said_ema(params: Mapping[str, Any], default: bool | None, where: str) -> bool | None:
    """Which of two sets of weights a yaml's `use_ema` asks for; `default` is the original's where it does not say.

    Raises:
        SourceError: `invalid`: neither true nor false.
    """
    said = params.get("use_ema", default)
    if not isinstance(said, bool | None):
        raise SourceError("invalid", f"use_ema is {said!r}", where=f"{where}.use_ema", fits="true or false")
    return said


def shadow(key: str) -> str:
    """Key of the EMA copy of a parameter: without its dots."""
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def unused_weights(denoiser: PartPlan) -> Callable[[str], str | None]:
    """Why a key of a whole model is not read, as far as all layouts agree: markers, and the denoiser's other set."""
    unet = denoiser.published()
    shadows = {shadow(key) for key in unet}

    def reason(key: str) -> str | None:
        if key in MARKERS:
            return "marker of the prediction type"
        if key in unet:
            return "raw weights: the EMA ones are used"
        return "EMA weights: the raw ones are used" if key in shadows else None

    return reason


def plan_codec(
    section: Mapping[str, Any],
    scale: float | None,
    prefix: str,
    where: str,
    averaged: bool = False,
    upcast: bool = False,
) -> PartPlan:
    """Plan the codec of a `first_stage_config`; `scale` multiplies its raw latents, None: unknown."""
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
    """Plan a file that holds a first stage alone, with keys without prefix."""
    kind, config = first_stage_from_compvis(section, where)
    scale, assumption = _own_scale(kind, config)
    # SDXL's overflows in float16, and cannot be told from Stable Diffusion's
    codec = plan_codec(section, scale, "", where, averaged=True, upcast=assumption is not None)
    known = {shadow(key) for key in codec.published()}

    def ignore(key: str) -> str | None:
        if key.startswith("model_ema.loss"):
            return "training only: perceptual loss and discriminator"
        if key.startswith("model_ema.") and key not in known and key not in UNREAD_BUFFERS:
            return None
        return ignorable_vae_key(key) or UNREAD_BUFFERS.get(key)

    params = params_of(section)
    ema = said_ema(params, True if params.get("ema_decay") else None, f"{where}.params")
    return CheckpointPlan(codec, ignore, assumption=assumption, ema=ema)


def _own_scale(kind: str, config: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """The scale of a first stage whose file does not state it, and the assumption behind it.

    Published VQ models use unscaled latents (1). The scale of a KL model does not follow from its weights: each
    diffusion model measured its own.
    """
    if kind != "kl":
        return 1.0, None
    return (SD_SCALE, _ASSUMED) if KLConfig.of(config) == SD_KL else (None, None)


SD_KL = KLConfig(widths=(128, 256, 512, 512), embed_dim=4)
"""The shape of Stable Diffusion's and SDXL's first stage."""

SD_SCALE = 0.18215

_ASSUMED = (
    "its file does not say the scale of its latents, and its shapes are Stable Diffusion's: 0.18215 was assumed. "
    "SDXL's codec has the same shapes and 0.13025: say which by scale="
)
