"""Plan for a LatentDiffusion yaml (CompVis latent-diffusion, Stable Diffusion 1 and 2, ControlNet)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ldmkit_denoisers.config import UNetConfig
from ldmkit_processes.discrete import Discrete

from ldmkit import ConditionerSpec, PartSpec, SourceError, WeightsError
from ldmkit_checkpoints.compvis.conditions import Conditions, default_guidance, plan_conditions
from ldmkit_checkpoints.compvis.controlnet import control_of_yaml, controlnet_compvis
from ldmkit_checkpoints.compvis.plan import (
    UNREAD_BUFFERS,
    CheckpointPlan,
    PartPlan,
    codec_shape,
    plan_codec,
    said_ema,
    unused_weights,
)
from ldmkit_checkpoints.compvis.process import BUFFERS, expected_buffers, process_from_ldm
from ldmkit_checkpoints.compvis.unet_config import compvis_options, unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.compvis.yaml_config import params_of, section
from ldmkit_checkpoints.config_fields import known_only
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import prefixed
from ldmkit_checkpoints.singlefile.evidence import Evidence
from ldmkit_checkpoints.unread import ignorable_vae_key

UNET, CODEC, COND = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

TARGETS = frozenset(
    f"ldm.models.diffusion.ddpm.{name}"
    for name in ("LatentDiffusion", "LatentInpaintDiffusion", "LatentFinetuneDiffusion", "DDPM")
) | {"cldm.cldm.ControlLDM", "ldm.models.diffusion.ddpm_edit.LatentDiffusion"}

_READ = {
    *("linear_start", "linear_end", "timesteps", "beta_schedule", "cosine_s", "given_betas", "v_posterior"),
    *("parameterization", "unet_config", "first_stage_config", "cond_stage_config", "cond_stage_key"),
    *("conditioning_key", "concat_mode", "scale_factor", "scale_by_std", "image_size", "channels", "use_ema"),
    *(
        "control_stage_config",
        "control_key",
        "only_mid_control",
        "concat_keys",
        "global_average_pooling",
        "masked_image_key",
    ),
}
_NO_EFFECT = {
    *("ckpt_path", "ignore_keys", "load_only_unet", "monitor", "first_stage_key", "log_every_t", "clip_denoised"),
    *("loss_type", "original_elbo_weight", "l_simple_weight", "learn_logvar", "logvar_init", "scheduler_config"),
    *("use_positional_encodings", "num_timesteps_cond", "cond_stage_trainable", "cond_stage_forward", "ema_rate"),
    *("make_it_fit", "ucg_training", "reset_ema", "reset_num_ema_updates", "force_null_conditioning", "sd_locked"),
    *("finetune_keys", "keep_finetune_dims", "c_concat_log_start", "c_concat_log_end", "unet_trainable", "ema_decay"),
    *("base_learning_rate", "learning_rate", "load_ema", "u_cond_percent"),
}

PARAMETERS = frozenset(_READ | _NO_EFFECT)
"""Known keys of `model.params`: those that are read, and those that do not change what a model draws."""


def plan_ldm(model: Mapping[str, Any], inventory: Inventory, where: str, evidence: Evidence) -> CheckpointPlan:
    """Plan a `model` section with a LatentDiffusion target.

    Raises:
        SourceError: a parameter that is unknown or asks for something ldmkit does not support.
    """
    params = params_of(model)
    known_only(params, PARAMETERS, where)
    codec = _codec(params, inventory, where)
    channels, factor = codec_shape(codec)
    process = process_from_ldm(params, where, evidence)
    unet_section = section(params, "unet_config", where)
    unet_params = params_of(unet_section)
    unet = unet_from_compvis(unet_params, channels)
    conditions = plan_conditions(params, unet, inventory, where)
    unet = unet.model_copy(update=conditions.unet)
    denoiser = _unet(unet, unet_params)
    control, hint = _control(params, where)
    schedule, posterior = Discrete.of(process.config), params.get("v_posterior", 0.0)
    rescaled = schedule.zero_terminal_snr
    plain = schedule.model_copy(update={"zero_terminal_snr": False})
    return CheckpointPlan(
        codec,
        _ignore(params, codec, denoiser, conditions),
        denoiser,
        {**conditions.parts, **hint},
        control,
        process,
        expected_buffers(schedule, posterior),
        expected_buffers(plain, posterior) if rescaled else {},
        _defaults(params, factor, conditions),
        conditions.notes,
        ema=said_ema(params, True, where),
    )


def _codec(params: Mapping[str, Any], inventory: Inventory, where: str) -> PartPlan:
    if "first_stage_config" not in params:
        return PartPlan(PartSpec(type="identity", config={"channels": params.get("channels", 3)}))
    first = section(params, "first_stage_config", where)
    return plan_codec(first, _scale(params, inventory, where), CODEC, f"{where}.first_stage_config")


def _scale(params: Mapping[str, Any], inventory: Inventory, where: str) -> float:
    stored = inventory.tensors.get("scale_factor")
    if stored is None:
        if params.get("scale_by_std"):
            what = "'scale_factor' is missing, which scale_by_std measures in training"
            raise WeightsError("missing", what, where=inventory.where)
        return float(params.get("scale_factor", 1.0))
    if math.prod(stored.shape) != 1:
        what = f"'scale_factor' has shape {list(stored.shape)}, expected one number"
        raise WeightsError("wrong-shape", what, where=inventory.where)
    value = float(stored.read(True).double())
    if not (math.isfinite(value) and value > 0):
        raise SourceError("scale-factor", f"scale_factor is {value}", where=inventory.where, fits="a positive number")
    inventory.report.used[inventory.label + "scale_factor"] = "codec"
    return value


def _unet(unet: UNetConfig, params: Mapping[str, Any]) -> PartPlan:
    keymap = unet_compvis(unet, **compvis_options(params))
    spec = PartSpec(type="unet", config=unet.model_dump(mode="json", exclude_defaults=True))
    return PartPlan(spec, prefixed(keymap, foreign=UNET), averaged=True)


def _control(params: Mapping[str, Any], where: str) -> tuple[dict[str, PartPlan], dict[str, PartPlan]]:
    """The adapter of a ControlLDM and the conditioner for its hint, by name; both empty for other models."""
    if "control_stage_config" not in params:
        return {}, {}
    config = control_of_yaml(params, where)
    adapter = PartSpec(type="controlnet", config=config.model_dump(mode="json", exclude_defaults=True))
    hint = ConditionerSpec(type="hint", slot="control.hint", null="keep")
    keymap = prefixed(controlnet_compvis(config), foreign="control_model.")
    return {"control": PartPlan(adapter, keymap)}, {"hint": PartPlan(hint)}


def _ignore(
    params: Mapping[str, Any], first_stage: PartPlan, denoiser: PartPlan, conditions: Conditions
) -> Callable[[str], str | None]:
    unused, codec = unused_weights(denoiser), first_stage.published()

    def ignore(key: str) -> str | None:
        if key in BUFFERS:
            return "schedule: compared with the config's"
        if (why := unused(key)) is not None:
            return why
        if key.startswith(CODEC):
            return ignorable_vae_key(key.removeprefix(CODEC))
        if params.get("cond_stage_config") == "__is_first_stage__" and key.startswith(COND):
            same = CODEC + key.removeprefix(COND)
            reason = "a second copy of the first stage"
            return reason if same in codec else ignorable_vae_key(key.removeprefix(COND))
        return conditions.ignore(key) or UNREAD_BUFFERS.get(key)

    return ignore


def _defaults(params: Mapping[str, Any], factor: int, conditions: Conditions) -> dict[str, Any]:
    size = params.get("image_size", 256)
    height, width = size if isinstance(size, (list, tuple)) and len(size) == 2 else (size, size)
    return {
        "sampler": PartSpec(type="ddim"),
        "grid": PartSpec(type="ldm-ddim"),
        "guidance": default_guidance(conditions),
        "steps": 50,
        "size": (int(height) * factor, int(width) * factor),
    }
