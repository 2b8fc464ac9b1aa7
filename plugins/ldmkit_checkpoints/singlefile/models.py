"""Published models in a single file without yaml, recognised by their keys and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit import LazyTensor, SourceError
from ldmkit_checkpoints.singlefile.evidence import gather
from ldmkit_checkpoints.unsupported.tensors import refuse_unsupported_tensors

PLANES = {
    5: "a depth model: a map of depths beside the latent",
    7: "an upscaler: the small picture beside the latent",
    8: "InstructPix2Pix, or another model that reads a second latent",
}
"""Input channels of published U-Nets with additional planes that ldmkit does not produce."""

UNET = "model.diffusion_model."
_CLIP = "cond_stage_model.transformer."
_OPEN_CLIP = "cond_stage_model.model."
_EMBEDDERS = "conditioner.embedders."
SD2_BASE_STEPS = 875_000
"""`global_step` in Stable Diffusion 2's published 512-base file, which predicts eps."""

_KL_F8: dict[str, Any] = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


def infer_config(
    tensors: Mapping[str, LazyTensor], extras: Mapping[str, Any], where: str, metadata: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The config of a published model in the structure of its original yaml, and notes on what was assumed.

    Known: Stable Diffusion 1.x and its inpainting model, 2.x (768-v only with a config: see below), both with a
    ControlNet, SDXL base (for inpainting too) and refiner, and stand-alone first stages of any size.

    Args:
        extras: the other entries of a training checkpoint.
        metadata: of a safetensors file; with the marker keys it says what the network predicts.

    Raises:
        SourceError: `config-needed` for any other file; `prediction-unknown` for SD 2.x, whose eps and v models have
            the same keys and shapes; what `evidence.gather` raises.
    """
    first = _shape(tensors, UNET + "input_blocks.0.0.weight")
    if first is None:
        refuse_unsupported_tensors(tensors, where)
        if "encoder.conv_in.weight" in tensors and "decoder.conv_in.weight" in tensors:
            return {"model": _first_stage(tensors, where)}, ["first stage from its keys"]
        if len(tensors) == 1:
            refuse_unsupported_tensors(["emb_params"] if _is_embedding(*tensors.values()) else [], where)
        raise _needed(where)
    refuse_unsupported_tensors(tensors, where)
    evidence = gather(metadata or {}, tensors, where)
    stated = evidence.get("predicts")
    if any(key.startswith(_EMBEDDERS) for key in tensors):
        return _sdxl(tensors, where, stated)
    context = _shape(tensors, UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    if first[0] != 320 or context is None:
        raise _needed(where)
    _check_inputs(first[1], "", where)
    if context[1] == 768 and any(key.startswith(_CLIP) for key in tensors):
        config = _predicting(_sd(tensors, first[1], None), stated)
        return config, [f"config from its keys: Stable Diffusion 1, predicts {stated or 'eps'}"]
    if context[1] == 1024 and any(key.startswith(_OPEN_CLIP) for key in tensors):
        if extras.get("global_step") == SD2_BASE_STEPS:
            evidence.check("predicts", "eps", f"global_step {SD2_BASE_STEPS}")
        elif stated is None and first[1] == 4:
            what = "Stable Diffusion 2's eps and v models have the same keys"
            fits = "config= with parameterization eps (512-base) or v (768-v)"
            raise SourceError("prediction-unknown", what, where=where, fits=fits)
        config = _predicting(_sd(tensors, first[1], 1024), stated)
        return config, [f"config from its keys: Stable Diffusion 2, predicts {stated or 'eps'}"]
    raise _needed(where)


def _predicting(config: dict[str, Any], prediction: str | None) -> dict[str, Any]:
    config["model"]["params"]["parameterization"] = prediction or "eps"
    return config


def _is_embedding(tensor: LazyTensor) -> bool:
    """Whether the only tensor of a file is shaped like token embeddings; its key can be any word."""
    return len(tensor.shape) in (1, 2) and tensor.shape[-1] in (768, 1024, 1280, 2048, 4096)


def _shape(tensors: Mapping[str, LazyTensor], key: str) -> tuple[int, ...] | None:
    return tensors[key].shape if key in tensors and len(tensors[key].shape) >= 2 else None


def _check_inputs(channels: int, family: str, where: str) -> None:
    """Refuse a U-Net whose input channels are neither the latent's nor an inpainting model's."""
    if channels in (4, 9):
        return
    what = f"{family}a U-Net of {channels} input channels: {PLANES.get(channels, 'no model that is known')}"
    fits = "4 channels, or 9 of an inpainting model; for other planes load the diffusers folder and pass them in"
    raise SourceError("unsupported", what, where=where, fits=fits)


def _needed(where: str) -> SourceError:
    what = "the model cannot be recognised by its keys"
    return SourceError(
        "config-needed", what, where=where, fits="config= with the original yaml, or config.yaml next to the file"
    )


def _kl_f8(root: str) -> dict[str, Any]:
    return {"target": f"{root}.models.autoencoder.AutoencoderKL", "params": {"embed_dim": 4, "ddconfig": _KL_F8}}


def _sd(tensors: Mapping[str, LazyTensor], in_channels: int, context: int | None) -> dict[str, Any]:
    unet: dict[str, Any] = {
        "in_channels": in_channels, "out_channels": 4, "model_channels": 320, "attention_resolutions": [4, 2, 1],
        "num_res_blocks": 2, "channel_mult": [1, 2, 4, 4], "use_spatial_transformer": True, "transformer_depth": 1,
        "context_dim": context or 768,
    }  # fmt: skip
    unet |= {"num_heads": 8} if context is None else {"num_head_channels": 64, "use_linear_in_transformer": True}
    text = {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder"}
    if context is not None:
        name = "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"
        text = {"target": name, "params": {"layer": "penultimate"}}  # type: ignore[dict-item]
    inpaints = in_channels == 9
    params = {
        "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "cond_stage_key": "txt", "image_size": 64,
        "channels": 4, "conditioning_key": "hybrid" if inpaints else "crossattn", "scale_factor": 0.18215,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
        "first_stage_config": _kl_f8("ldm"), "cond_stage_config": text, "use_ema": None,
    }  # fmt: skip
    if (hint := _shape(tensors, "control_model.input_hint_block.0.weight")) is not None:
        control = {key: value for key, value in unet.items() if key != "out_channels"} | {"hint_channels": hint[1]}
        params["control_stage_config"] = {"target": "cldm.cldm.ControlNet", "params": control}
        return {"model": {"target": "cldm.cldm.ControlLDM", "params": params}}
    name = "LatentInpaintDiffusion" if inpaints else "LatentDiffusion"
    return {"model": {"target": f"ldm.models.diffusion.ddpm.{name}", "params": params}}


def _sdxl(tensors: Mapping[str, LazyTensor], where: str, stated: str | None) -> tuple[dict[str, Any], list[str]]:
    label = _shape(tensors, UNET + "label_emb.0.0.weight")
    if label is None or label[1] not in (2816, 2560):
        raise _needed(where)
    base = label[1] == 2816
    for i in range(2 if base else 1):
        if not any(key.startswith(f"{_EMBEDDERS}{i}.") for key in tensors):
            what = f"it is an SDXL model without text encoder {_EMBEDDERS}{i}"
            raise SourceError("denoiser-only", what, where=where, fits="the complete model")
    entry = _shape(tensors, UNET + "input_blocks.0.0.weight")
    if entry is None:
        raise _needed(where)
    _check_inputs(entry[1], "SDXL: ", where)
    predicts_v = stated == "v"
    unet: dict[str, Any] = {
        "adm_in_channels": label[1], "num_classes": "sequential", "in_channels": entry[1], "out_channels": 4,
        "num_res_blocks": 2, "attention_resolutions": [4, 2], "num_head_channels": 64,
        "use_linear_in_transformer": True,
    }  # fmt: skip
    if base:
        shape = {"model_channels": 320, "channel_mult": [1, 2, 4], "transformer_depth": [1, 2, 10], "context_dim": 2048}
    else:
        shape = {"model_channels": 384, "channel_mult": [1, 2, 4, 4], "transformer_depth": 4, "context_dim": 1280}
    root = "sgm.modules.diffusionmodules"
    scaling = "VScaling" if predicts_v else "EpsScaling"
    params = {
        "scale_factor": 0.13025,
        "disable_first_stage_autocast": True,
        "use_ema": None,
        "denoiser_config": {
            "target": f"{root}.denoiser.DiscreteDenoiser",
            "params": {
                "num_idx": 1000,
                "scaling_config": {"target": f"{root}.denoiser_scaling.{scaling}"},
                "discretization_config": {"target": f"{root}.discretizer.LegacyDDPMDiscretization"},
            },
        },
        "network_config": {"target": f"{root}.openaimodel.UNetModel", "params": unet | shape},
        "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": _embedders(base)}},
        "first_stage_config": _kl_f8("sgm"),
    }
    name = ("base" if base else "refiner") + (" for inpainting" if entry[1] == 9 else "")
    notes = [f"config from its keys: SDXL {name}, predicts {'v' if predicts_v else 'eps'}"]
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}, notes


def _embedders(base: bool) -> list[dict[str, Any]]:
    root = "sgm.modules.encoders.modules"
    open_clip = {"arch": "ViT-bigG-14", "layer": "penultimate", "always_return_pooled": True, "legacy": False}
    listed: list[tuple[str, str, dict[str, Any]]] = [("txt", "FrozenOpenCLIPEmbedder2", open_clip)]
    sizes = ["original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple" if base else "aesthetic_score"]
    if base:
        listed.insert(0, ("txt", "FrozenCLIPEmbedder", {"layer": "hidden", "layer_idx": 11}))
    listed += [(key, "ConcatTimestepEmbedderND", {"outdim": 256}) for key in sizes]
    return [{"input_key": key, "target": f"{root}.{name}", "params": params} for key, name, params in listed]


def _first_stage(tensors: Mapping[str, LazyTensor], where: str) -> dict[str, Any]:
    """The config of a KL or VQ autoencoder; attention levels are found by their keys."""
    widths: list[int] = []
    blocks = 0
    while (shape := _shape(tensors, f"encoder.down.{len(widths)}.block.0.conv2.weight")) is not None:
        widths.append(shape[0])
    while f"encoder.down.0.block.{blocks}.conv2.weight" in tensors:
        blocks += 1
    entry = _shape(tensors, "encoder.conv_in.weight")
    out = _shape(tensors, "decoder.conv_out.weight")
    z = _shape(tensors, "decoder.conv_in.weight")
    post = _shape(tensors, "post_quant_conv.weight")
    if post is None and z is not None and widths:
        what = f"it is a first stage of {z[1]} channels without a 1x1 convolution before its decoder (FLUX, SD 3)"
        fits = "ldmkit.load_codec with diffusers' folder of it, config.json included"
        raise SourceError("unsupported", what, where=where, fits=fits)
    if not widths or entry is None or out is None or z is None or post is None or any(w % entry[0] for w in widths):
        raise _needed(where)
    codebook = _shape(tensors, "quantize.embedding.weight")
    attended = [256 >> level for level in range(len(widths)) if f"encoder.down.{level}.attn.0.q.weight" in tensors]
    ddconfig = {
        "double_z": codebook is None, "z_channels": z[1], "resolution": 256, "in_channels": entry[1],
        "out_ch": out[0], "ch": entry[0], "ch_mult": [w // entry[0] for w in widths], "num_res_blocks": blocks,
        "attn_resolutions": attended, "dropout": 0.0,
        "attn_type": "vanilla" if "encoder.mid.attn_1.q.weight" in tensors else "none",
    }  # fmt: skip
    params: dict[str, Any] = {"embed_dim": post[1], "ddconfig": ddconfig}
    if codebook is not None:
        params["n_embed"] = codebook[0]
    name = "AutoencoderKL" if codebook is None else "VQModel"
    return {"target": f"ldm.models.autoencoder.{name}", "params": params}
