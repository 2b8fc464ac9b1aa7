"""Published models of the latent-diffusion family that have no golden data: their configs in the original yaml's
structure, complete checkpoints in their own key layout. `original_files` writes them at a size that tests can run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import original_layout as layout
import torch
from original_layout import Shapes
from torch import Tensor

CLIP_L = {"width": 768, "layers": 12, "mlp": 3072}
OPEN_H = {"width": 1024, "layers": 24, "mlp": 4096, "projection": 1024}
OPEN_BIG_G = {"width": 1280, "layers": 32, "mlp": 5120, "projection": 1280}
SMALL_CLIP = {"width": 64, "heads": 4, "layers": 12, "mlp": 128}
SMALL_OPEN = {"width": 64, "heads": 4, "layers": 3, "mlp": 128, "projection": 64}

DDPM, STAGE = "ldm.models.diffusion.ddpm", "ldm.models.autoencoder"
TEXT = "ldm.modules.encoders.modules"
STALE = ("ddim_sigmas", "ddim_alphas", "ddim_alphas_prev", "ddim_sqrt_one_minus_alphas")


def stage(kind: str, z: int, mult: list[int], attended: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    dd = {
        "double_z": kind == "AutoencoderKL", "z_channels": z, "resolution": 256, "in_channels": 3, "out_ch": 3,
        "ch": 128, "ch_mult": mult, "num_res_blocks": 2, "attn_resolutions": list(attended), "dropout": 0.0,
    }  # fmt: skip
    if "attn_type" in more:
        dd["attn_type"] = more.pop("attn_type")
    loss = {"target": "torch.nn.Identity"}
    params = {"embed_dim": z, "monitor": "val/rec_loss", "ddconfig": dd, "lossconfig": loss, **more}
    return {"target": f"{STAGE}.{kind}", "params": params}


def vq_f4(**more: Any) -> dict[str, Any]:
    return stage("VQModelInterface", 3, [1, 2, 4], n_embed=8192, **more)


def kl_f8() -> dict[str, Any]:
    return stage("AutoencoderKL", 4, [1, 2, 4, 4])


def unet(inputs: int, outputs: int, width: int, mult: list[int], at: list[int], **more: Any) -> dict[str, Any]:
    params = {
        "image_size": 32, "in_channels": inputs, "out_channels": outputs, "model_channels": width,
        "attention_resolutions": at, "num_res_blocks": 2, "channel_mult": mult, **more,
    }  # fmt: skip
    return {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": params}


def ldm(network: Any, first: Any, cond: Any, betas: tuple[float, float], size: int = 64, **more: Any) -> dict[str, Any]:
    params = {
        "linear_start": betas[0], "linear_end": betas[1], "num_timesteps_cond": 1, "log_every_t": 200,
        "timesteps": 1000, "first_stage_key": "image", "image_size": size,
        "channels": network["params"]["out_channels"],
        "monitor": "val/loss_simple_ema", "unet_config": network, "first_stage_config": first,
        "cond_stage_config": cond, **more,
    }  # fmt: skip
    data = {"target": "main.DataModuleFromConfig", "params": {"batch_size": 48, "num_workers": 5}}
    return {"model": {"base_learning_rate": 2e-6, "target": f"{DDPM}.LatentDiffusion", "params": params}, "data": data}


def faces(width: int = 224) -> dict[str, Any]:
    network = unet(3, 3, width, [1, 2, 3, 4], [8, 4, 2], num_head_channels=32)
    more = {"cond_stage_key": "class_label", "concat_mode": False, "cond_stage_trainable": False}
    return ldm(network, vq_f4(), "__is_unconditional__", (0.0015, 0.0195), **more)


def cin256() -> dict[str, Any]:
    more = {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 512}
    network = unet(4, 4, 256, [1, 2, 4], [4, 2, 1], num_head_channels=32, **more)
    first = stage("VQModelInterface", 4, [1, 2, 2, 4], (32,), n_embed=16384)
    cond = {"target": f"{TEXT}.ClassEmbedder", "params": {"embed_dim": 512, "key": "class_label"}}
    keys = {"cond_stage_key": "class_label", "conditioning_key": "crossattn", "cond_stage_trainable": True}
    return ldm(network, first, cond, (0.0015, 0.0195), 32, **keys)


def semantic512() -> dict[str, Any]:
    network = unet(6, 3, 128, [1, 4, 8], [32, 16, 8], num_heads=8)
    params = {"n_stages": 2, "in_channels": 182, "out_channels": 3}
    cond = {"target": f"{TEXT}.SpatialRescaler", "params": params}
    keys = {"cond_stage_key": "segmentation", "concat_mode": True, "cond_stage_trainable": True}
    return ldm(network, vq_f4(), cond, (0.0015, 0.0205), 128, **keys)


def bsr_sr() -> dict[str, Any]:
    network = unet(6, 3, 160, [1, 2, 2, 4], [16, 8], num_head_channels=32)
    keys = {"cond_stage_key": "LR_image", "concat_mode": True, "cond_stage_trainable": False}
    return ldm(network, vq_f4(), {"target": "torch.nn.Identity"}, (0.0015, 0.0155), **keys)


def inpainting_big() -> dict[str, Any]:
    network = unet(7, 3, 256, [1, 2, 3, 4], [8, 4, 2], num_heads=8, resblock_updown=True)
    schedule = {"target": "ldm.lr_scheduler.LambdaWarmUpCosineScheduler", "params": {"warm_up_steps": 1000}}
    keys = {"cond_stage_key": "masked_image", "concat_mode": True, "scheduler_config": schedule}
    return ldm(network, vq_f4(attn_type="none"), "__is_first_stage__", (0.0015, 0.0205), **keys)


def txt2img() -> dict[str, Any]:
    more = {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 1280, "use_checkpoint": True}
    network = unet(4, 4, 320, [1, 2, 4, 4], [4, 2, 1], num_heads=8, legacy=False, **more)
    cond = {"target": f"{TEXT}.BERTEmbedder", "params": {"n_embed": 1280, "n_layer": 32}}
    keys = {"cond_stage_key": "caption", "conditioning_key": "crossattn", "cond_stage_trainable": True}
    return ldm(network, kl_f8(), cond, (0.00085, 0.012), 32, scale_factor=0.18215, use_ema=False, **keys)


def rdm768() -> dict[str, Any]:
    more = {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 768, "use_checkpoint": True}
    network = unet(16, 16, 448, [1, 2, 3, 4], [4, 2, 1], num_head_channels=32, **more)
    first = stage("AutoencoderKL", 16, [1, 1, 2, 2, 4], (16,))
    keys = {"cond_stage_key": "nix", "conditioning_key": "crossattn", "cond_stage_trainable": False}
    cond = {"target": "torch.nn.Identity"}
    return ldm(network, first, cond, (0.0015, 0.015), 48, scale_factor=0.22765929, **keys)


SD_KEYS = {
    "cond_stage_key": "txt", "first_stage_key": "jpg", "conditioning_key": "crossattn", "scale_factor": 0.18215,
    "cond_stage_trainable": False, "use_ema": False,
}  # fmt: skip


def sd1(inputs: int = 4) -> dict[str, Any]:
    more = {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 768, "use_checkpoint": True}
    network = unet(inputs, 4, 320, [1, 2, 4, 4], [4, 2, 1], num_heads=8, legacy=False, **more)
    cond = {"target": f"{TEXT}.FrozenCLIPEmbedder"}
    return ldm(network, kl_f8(), cond, (0.00085, 0.012), **SD_KEYS)


def sd2(inputs: int = 4, **changes: Any) -> dict[str, Any]:
    more = {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 1024, "use_checkpoint": True}
    more |= {"use_linear_in_transformer": True, "use_fp16": True}
    network = unet(inputs, 4, 320, [1, 2, 4, 4], [4, 2, 1], num_head_channels=64, legacy=False, **more)
    cond = {"target": f"{TEXT}.FrozenOpenCLIPEmbedder", "params": {"freeze": True, "layer": "penultimate"}}
    return ldm(network, kl_f8(), cond, (0.00085, 0.012), **{**SD_KEYS, **changes})


def inpainting(config: dict[str, Any]) -> dict[str, Any]:
    config["model"]["target"] = f"{DDPM}.LatentInpaintDiffusion"
    config["model"]["params"] |= {"conditioning_key": "hybrid", "finetune_keys": None, "concat_mode": True}
    return config


def controlled(config: dict[str, Any]) -> dict[str, Any]:
    params = config["model"]["params"]
    control = {k: v for k, v in params["unet_config"]["params"].items() if k != "out_channels"}
    params["unet_config"]["target"] = "cldm.cldm.ControlledUnetModel"
    params["control_stage_config"] = {"target": "cldm.cldm.ControlNet", "params": {**control, "hint_channels": 3}}
    params |= {"control_key": "hint", "only_mid_control": False}
    config["model"]["target"] = "cldm.cldm.ControlLDM"
    return config


def sdxl(base: bool, inputs: int = 4) -> dict[str, Any]:
    root = "sgm.modules.diffusionmodules"
    width, mult, depth, context, vector = (
        (320, [1, 2, 4], [1, 2, 10], 2048, 2816) if base else (384, [1, 2, 4, 4], 4, 1280, 2560)
    )
    more = {"adm_in_channels": vector, "num_classes": "sequential", "transformer_depth": depth, "context_dim": context}
    more |= {"spatial_transformer_attn_type": "softmax-xformers", "use_linear_in_transformer": True}
    network = unet(inputs, 4, width, mult, [4, 2], num_head_channels=64, use_checkpoint=True, legacy=False, **more)
    network["params"].pop("image_size")
    first = stage("AutoencoderKL", 4, [1, 2, 4, 4], attn_type="vanilla-xformers")
    params = {
        "scale_factor": 0.13025, "disable_first_stage_autocast": True,
        "denoiser_config": {
            "target": f"{root}.denoiser.DiscreteDenoiser",
            "params": {
                "num_idx": 1000,
                "weighting_config": {"target": f"{root}.denoiser_weighting.EpsWeighting"},
                "scaling_config": {"target": f"{root}.denoiser_scaling.EpsScaling"},
                "discretization_config": {"target": f"{root}.discretizer.LegacyDDPMDiscretization"},
            },
        },
        "network_config": {**network, "target": f"{root}.openaimodel.UNetModel"},
        "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": embedders(base)}},
        "first_stage_config": {**first, "target": "sgm.models.autoencoder.AutoencoderKLInferenceWrapper"},
    }  # fmt: skip
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}


def embedders(base: bool) -> list[dict[str, Any]]:
    root = "sgm.modules.encoders.modules"
    tower = {"arch": "ViT-bigG-14", "version": "laion2b_s39b_b160k", "freeze": True, "layer": "penultimate"}
    tower |= {"always_return_pooled": True, "legacy": False}
    listed: list[tuple[str, str, dict[str, Any]]] = [("txt", "FrozenOpenCLIPEmbedder2", tower)]
    if base:
        listed.insert(0, ("txt", "FrozenCLIPEmbedder", {"layer": "hidden", "layer_idx": 11}))
    sizes = ["original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple" if base else "aesthetic_score"]
    listed += [(key, "ConcatTimestepEmbedderND", {"outdim": 256}) for key in sizes]
    return [
        {"is_trainable": False, "input_key": key, "target": f"{root}.{name}", "params": params}
        for key, name, params in listed
    ]


Extra = Callable[[dict[str, Any]], Shapes]


@dataclass(frozen=True)
class Original:
    """A published model.

    Args:
        config: its yaml, at full size.
        counts: tensors in its file, in all; None where it is a first stage.
        text: layout of the text encoder in its file: "", "clip", "clip-flat", "open-clip", "sdxl", "refiner".
        ema: the file holds averaged weights beside the raw ones.
        extras: keys of the file that no module reads.
    """

    config: dict[str, Any]
    count: int
    text: str = ""
    ema: bool = False
    extras: Shapes = field(default_factory=dict)

    @property
    def params(self) -> dict[str, Any]:
        return self.config["model"]["params"]  # type: ignore[no-any-return]

    @property
    def is_stage(self) -> bool:
        return "ddconfig" in self.params


def stale() -> Shapes:
    return dict.fromkeys(STALE, (20,))


def first(kind: str, z: int, mult: list[int], count: int, layers: int = 3, **more: Any) -> Original:
    section = stage(kind, z, mult, more.pop("attended", ()), **more)
    section["params"]["lossconfig"] = {
        "target": "ldm.modules.losses.LPIPSWithDiscriminator",
        "params": {"disc_start": 1},
    }
    extras = layout.first_stage_loss(kind == "AutoencoderKL", layers)
    return Original({"model": {"base_learning_rate": 4.5e-6, **section}}, count, extras=extras)


LOGVAR: Shapes = {"logvar": (1000,)}

MODELS: dict[str, Original] = {
    "ffhq256": Original(faces(), 955, ema=True),
    "lsun_beds256": Original(faces(), 955, ema=True),
    "cin256": Original(cin256(), 1566, ema=True),
    "semantic_synthesis512": Original(semantic512(), 652, ema=True),
    "bsr_sr": Original(bsr_sr(), 831 + 4, ema=True, extras=stale()),
    "inpainting_big": Original(inpainting_big(), 1216 + 4, ema=True, extras=stale()),
    "txt2img-1p4B": Original(txt2img(), 1368),
    "rdm768": Original(rdm768(), 1732, ema=True),
    "sd1": Original(sd1(), 946 + 197, "clip"),
    "sd1-flat": Original(sd1(), 946 + 196, "clip-flat"),
    "sd1-inpaint": Original(inpainting(sd1(9)), 946 + 197, "clip"),
    "sd2-base": Original(sd2(), 946 + 294, "open-clip"),
    "sd2-v": Original(sd2(parameterization="v"), 947 + 294, "open-clip", extras=LOGVAR),
    "sd2-inpaint": Original(inpainting(sd2(9)), 947 + 294, "open-clip", extras=LOGVAR),
    "cldm_v15": Original(controlled(sd1()), 1287 + 197, "clip", extras=LOGVAR),
    "cldm_v21": Original(controlled(sd2()), 1287 + 294, "open-clip", extras=LOGVAR),
    "sdxl-base": Original(sdxl(True), 2515 + 1, "sdxl"),
    "sdxl-inpaint": Original(sdxl(True, 9), 2515 + 1, "sdxl"),
    "sdxl-refiner": Original(sdxl(False), 1469 + 390, "refiner"),
}

STAGES: dict[str, Original] = {
    "kl-f16": first("AutoencoderKL", 16, [1, 1, 2, 2, 4], 0, attended=(16,)),
    "kl-f32": first("AutoencoderKL", 64, [1, 1, 2, 2, 4, 4], 0, attended=(16, 8)),
    "vq-f4-noattn": first("VQModel", 3, [1, 2, 4], 0, n_embed=8192, attn_type="none"),
    "vq-f8": first("VQModel", 4, [1, 2, 2, 4], 0, layers=2, attended=(32,), n_embed=16384),
    "vq-f8-n256": first("VQModel", 4, [1, 2, 2, 4], 0, attended=(32,), n_embed=256),
    "vq-f16": first("VQModel", 8, [1, 1, 2, 2, 4], 0, layers=2, attended=(16,), n_embed=16384),
}


def shapes(model: Original, small: bool = False) -> Shapes:
    """Every key of the file but the schedule's buffers, the averaged copies and what `extras` lists."""
    params = model.params
    if model.is_stage:
        return layout.first_stage(params)
    network = params.get("unet_config") or params["network_config"]
    found = layout.under("model.diffusion_model.", layout.UNetKeys(network["params"]).shapes())
    if "control_stage_config" in params:
        keys = layout.UNetKeys(params["control_stage_config"]["params"], control=True).shapes()
        found |= layout.under("control_model.", keys)
    own = layout.first_stage(params["first_stage_config"]["params"])
    found |= layout.under("first_stage_model.", own)
    cond = params.get("cond_stage_config")
    if cond == "__is_first_stage__":
        found |= layout.under("cond_stage_model.", own)
    elif isinstance(cond, Mapping):
        found |= layout.under("cond_stage_model.", _conditioner(cond, model.text, small))
    elif model.text:
        found |= _towers(model.text, small)
    return found


def _conditioner(section: Mapping[str, Any], text: str, small: bool) -> Shapes:
    name, params = section["target"].rpartition(".")[2], section.get("params") or {}
    if name == "ClassEmbedder":
        return {"embedding.weight": (params.get("n_classes", 1000), params["embed_dim"])}
    if name == "SpatialRescaler":
        return {"channel_mapper.weight": (params["out_channels"], params["in_channels"], 1, 1)}
    if name == "BERTEmbedder":
        return layout.bert(params)
    if text == "open-clip":
        return layout.open_clip(SMALL_OPEN if small else OPEN_H)
    if text == "clip-flat":
        return layout.clip_hf(SMALL_CLIP if small else CLIP_L, level="", position_ids=False)
    return layout.clip_hf(SMALL_CLIP if small else CLIP_L) if text else {}


def _towers(text: str, small: bool) -> Shapes:
    prefix = "conditioner.embedders."
    big = layout.open_clip(SMALL_OPEN if small else OPEN_BIG_G)
    if text == "refiner":
        return layout.under(f"{prefix}0.", big)
    clip = layout.clip_hf(SMALL_CLIP if small else CLIP_L)
    return layout.under(f"{prefix}0.", clip) | layout.under(f"{prefix}1.", big)


def shadow(key: str) -> str:
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def averaged(model: Original, listed: Shapes) -> Shapes:
    if not model.ema:
        return {}
    return {shadow(key): shape for key, shape in listed.items() if key.startswith("model.")}


def buffers(model: Original) -> dict[str, Tensor]:
    """The schedule, and the averaged weights' bookkeeping."""
    if model.is_stage:
        return {}
    if "denoiser_config" in model.params:
        bar = (1 - layout.schedule(0.00085, 0.012)["betas"].double()).cumprod(0)
        return {"denoiser.sigmas": ((1 - bar) / bar).sqrt().float()}
    found = layout.schedule(model.params["linear_start"], model.params["linear_end"])
    if model.ema:
        found |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
    return found
