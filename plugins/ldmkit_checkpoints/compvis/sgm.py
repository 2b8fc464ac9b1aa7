"""Plan for sgm's DiffusionEngine yaml (SDXL base and refiner)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ldmkit_processes.discrete import Discrete
from torch import Tensor

from ldmkit import PartSpec
from ldmkit_checkpoints.compvis.conditions import Conditions, default_guidance, plan_embedders
from ldmkit_checkpoints.compvis.plan import (
    UNREAD_BUFFERS,
    CheckpointPlan,
    PartPlan,
    codec_shape,
    plan_codec,
    said_ema,
    unused_weights,
)
from ldmkit_checkpoints.compvis.process import process_from_sgm
from ldmkit_checkpoints.compvis.unet_config import compvis_options, unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.compvis.yaml_config import params_of, section
from ldmkit_checkpoints.config_fields import known_only
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import prefixed
from ldmkit_checkpoints.singlefile.evidence import Evidence
from ldmkit_checkpoints.unread import ignorable_vae_key

UNET, CODEC = "model.diffusion_model.", "first_stage_model."

TARGETS = frozenset(["sgm.models.diffusion.DiffusionEngine"])

_READ = {"scale_factor", "denoiser_config", "network_config", "conditioner_config", "first_stage_config"}
_READ |= {"disable_first_stage_autocast", "use_ema"}
_NO_EFFECT = {
    *("sampler_config", "loss_fn_config", "optimizer_config", "scheduler_config"),
    *("ckpt_path", "ema_decay_rate", "network_wrapper", "input_key", "log_keys", "no_cond_log"),
    *("compile_model", "en_and_decode_n_samples_a_time", "load_last_embedder", "from_scratch"),
}

SIZE = 1024
"""(height, width) in pixels that both models were trained for, which the yaml does not state."""


def plan_sgm(model: Mapping[str, Any], inventory: Inventory, where: str, evidence: Evidence) -> CheckpointPlan:
    """Plan a `model` section with a DiffusionEngine target.

    Raises:
        SourceError: a parameter that is unknown or asks for something ldmkit does not support.
    """
    params = params_of(model)
    known_only(params, _READ | _NO_EFFECT, where)
    first = section(params, "first_stage_config", where)
    upcast = bool(params.get("disable_first_stage_autocast", False))
    scale = float(params.get("scale_factor", 1.0))
    codec = plan_codec(first, scale, CODEC, f"{where}.first_stage_config", upcast=upcast)
    channels, _ = codec_shape(codec)
    process = process_from_sgm(section(params, "denoiser_config", where), f"{where}.denoiser_config", evidence)
    network = params_of(section(params, "network_config", where))
    unet = unet_from_compvis(network, channels)
    embedders = section(params, "conditioner_config", where)
    conditions = plan_embedders(embedders, unet, inventory, f"{where}.conditioner_config")
    unet = unet.model_copy(update=conditions.unet)
    keymap = prefixed(unet_compvis(unet, **compvis_options(network)), foreign=UNET)
    spec = PartSpec(type="unet", config=unet.model_dump(mode="json", exclude_defaults=True))
    denoiser = PartPlan(spec, keymap, averaged=True)
    schedule = Discrete.of(process.config)
    rescaled = schedule.zero_terminal_snr
    plain = schedule.model_copy(update={"zero_terminal_snr": False})
    return CheckpointPlan(
        codec,
        _ignore(denoiser, conditions),
        denoiser,
        conditions.parts,
        process=process,
        buffers=_buffers(schedule),
        unscaled=_buffers(plain) if rescaled else {},
        defaults=_defaults(conditions),
        notes=conditions.notes,
        ema=said_ema(params, False, where),
    )


def _buffers(schedule: Discrete) -> dict[str, Tensor]:
    return {"denoiser.sigmas": torch.tensor(schedule.table.sigmas, dtype=torch.float64)}


def _ignore(denoiser: PartPlan, conditions: Conditions) -> Callable[[str], str | None]:
    unused = unused_weights(denoiser)

    def ignore(key: str) -> str | None:
        if key == "denoiser.sigmas":
            return "schedule: compared with the config's"
        if (why := unused(key)) is not None:
            return why
        if key.startswith(CODEC):
            return ignorable_vae_key(key.removeprefix(CODEC))
        return conditions.ignore(key) or UNREAD_BUFFERS.get(key)

    return ignore


def _defaults(conditions: Conditions) -> dict[str, Any]:
    return {
        "sampler": PartSpec(type="euler"),
        "grid": PartSpec(type="linspace", config={"endpoint": False, "rounding": "floor"}),
        "guidance": default_guidance(conditions),
        "steps": 30,
        "size": (SIZE, SIZE),
    }
