"""Models of the family without golden data: their configs are planned, and the keys counted that their files have.

The counts are those of the original modules' state dicts (12 schedule buffers, U-Net, averaged copy, first stage,
conditioner), with the keys that published files carry beside them left out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_checkpoints.compvis.checkpoint import CompVisSource
from ldmkit_checkpoints.compvis.plan import shadow
from ldmkit_checkpoints.compvis.process import BUFFERS, expected_buffers
from ldmkit_processes.discrete import Discrete
from torch import Tensor

import ldmkit
from ldmkit.models.compose import Parts, compose
from ldmkit.models.weights import LazyTensor, check

LDM, UNET = "ldm.models.diffusion.ddpm", "ldm.modules.diffusionmodules.openaimodel.UNetModel"
STAGES = "ldm.models.autoencoder"
ENCODERS = "ldm.modules.encoders.modules"


def first_stage(kind: str, mult: list[int], z: int, attn: list[int], **more: Any) -> dict[str, Any]:
    dd = {"double_z": kind == "AutoencoderKL", "z_channels": z, "resolution": 256, "in_channels": 3, "out_ch": 3}
    dd |= {"ch": 128, "ch_mult": mult, "num_res_blocks": 2, "attn_resolutions": attn, "dropout": 0.0}
    dd |= {key: more.pop(key) for key in ("attn_type",) if key in more}
    loss = {"target": "torch.nn.Identity"}
    return {"target": f"{STAGES}.{kind}", "params": {"embed_dim": z, "ddconfig": dd, "lossconfig": loss, **more}}


VQ4 = first_stage("VQModelInterface", [1, 2, 4], 3, [], n_embed=8192)
KL8 = first_stage("AutoencoderKL", [1, 2, 4, 4], 4, [])


def ldm(unet: dict[str, Any], stage: dict[str, Any], cond: Any, kind: str = "LatentDiffusion", **params: Any) -> Any:
    shape = {"image_size": 64, "out_channels": unet.get("in_channels"), "num_res_blocks": 2, **unet}
    sections = {
        "unet_config": {"target": UNET, "params": shape},
        "first_stage_config": stage,
        "cond_stage_config": cond,
    }
    base = {"linear_start": 0.0015, "linear_end": 0.0195, "timesteps": 1000, "image_size": 64, **sections, **params}
    return {"model": {"target": f"{LDM}.{kind}", "params": base}}


def cross(
    width: int, mult: list[int], context: int, where: list[int], channels: int = 3, **more: Any
) -> dict[str, Any]:
    heads = {} if "num_heads" in more else {"num_head_channels": 32}
    shape = {"in_channels": channels, "model_channels": width, "channel_mult": mult, "attention_resolutions": where}
    return {**shape, "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": context, **heads, **more}


def embedder(name: str, **params: Any) -> dict[str, Any]:
    return {"target": f"{ENCODERS}.{name}", "params": params}


def sd2(**params: Any) -> Any:
    shape = cross(320, [1, 2, 4, 4], 1024, [4, 2, 1], 4, num_head_channels=64)
    text = embedder("FrozenOpenCLIPEmbedder", freeze=True, layer="penultimate")
    more = {"cond_stage_key": "txt", "scale_factor": 0.18215, "linear_start": 0.00085, "linear_end": 0.012}
    shape |= {"use_linear_in_transformer": True}
    return ldm(shape, KL8, text, **{"conditioning_key": "crossattn", **more, **params})


def refiner() -> Any:
    root = "sgm.modules.diffusionmodules"
    unet = {"adm_in_channels": 2560, "num_classes": "sequential", "in_channels": 4, "out_channels": 4}
    unet |= {"model_channels": 384, "attention_resolutions": [4, 2], "num_res_blocks": 2, "channel_mult": [1, 2, 4, 4]}
    unet |= {"num_head_channels": 64, "use_linear_in_transformer": True, "transformer_depth": 4}
    unet |= {"context_dim": [1280, 1280, 1280, 1280]}
    open_clip = {
        "arch": "ViT-bigG-14",
        "freeze": True,
        "layer": "penultimate",
        "always_return_pooled": True,
        "legacy": False,
    }
    listed = [("txt", "FrozenOpenCLIPEmbedder2", open_clip)]
    for key in ("original_size_as_tuple", "crop_coords_top_left", "aesthetic_score"):
        listed.append((key, "ConcatTimestepEmbedderND", {"outdim": 256}))
    models = [{"input_key": k, "target": f"sgm.modules.encoders.modules.{n}", "params": p} for k, n, p in listed]
    scaling = {"target": f"{root}.denoiser_scaling.EpsScaling"}
    discretization = {"target": f"{root}.discretizer.LegacyDDPMDiscretization"}
    denoiser = {"num_idx": 1000, "scaling_config": scaling, "discretization_config": discretization}
    params = {
        "scale_factor": 0.13025,
        "denoiser_config": {"target": f"{root}.denoiser.DiscreteDenoiser", "params": denoiser},
        "network_config": {"target": f"{root}.openaimodel.UNetModel", "params": unet},
        "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": models}},
        "first_stage_config": {**KL8, "target": "sgm.models.autoencoder.AutoencoderKL"},
    }
    return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}}


PLAIN = {"in_channels": 3, "model_channels": 224, "attention_resolutions": [8, 4, 2], "channel_mult": [1, 2, 3, 4]}
NONE = {"concat_mode": False, "cond_stage_key": "class_label"}

# name, config, number of keys in the file, inputs
FAMILY: list[tuple[str, Any, int, list[str]]] = [
    ("ffhq256", ldm({**PLAIN, "num_head_channels": 32}, VQ4, "__is_unconditional__", **NONE), 955, []),
    (
        "cin256",
        ldm(
            cross(256, [1, 2, 4], 512, [4, 2, 1], 4),
            first_stage("VQModelInterface", [1, 2, 2, 4], 4, [32], n_embed=16384),
            embedder("ClassEmbedder", embed_dim=512, key="class_label"),
            cond_stage_key="class_label", conditioning_key="crossattn",
        ),
        1566, ["label"],
    ),
    (
        "inpainting_big",
        ldm(
            {
                "in_channels": 7, "out_channels": 3, "model_channels": 256, "attention_resolutions": [8, 4, 2],
                "channel_mult": [1, 2, 3, 4], "num_heads": 8, "resblock_updown": True,
            },
            first_stage("VQModelInterface", [1, 2, 4], 3, [], n_embed=8192, attn_type="none"),
            "__is_first_stage__", cond_stage_key="masked_image", concat_mode=True,
        ),
        1216, ["masked-image"],
    ),
    (
        "txt2img-1p4B",
        ldm(
            cross(320, [1, 2, 4, 4], 1280, [4, 2, 1], 4, num_heads=8, legacy=False, use_checkpoint=True), KL8,
            embedder("BERTEmbedder", n_embed=1280, n_layer=32),
            cond_stage_key="caption", conditioning_key="crossattn", scale_factor=0.18215, use_ema=False,
        ),
        1368, ["text"],
    ),
    (
        "semantic_synthesis512",
        ldm(
            {
                "in_channels": 6, "out_channels": 3, "model_channels": 128, "attention_resolutions": [32, 16, 8],
                "channel_mult": [1, 4, 8], "num_heads": 8, "image_size": 128,
            },
            VQ4, embedder("SpatialRescaler", n_stages=2, in_channels=182, out_channels=3),
            cond_stage_key="segmentation", concat_mode=True, image_size=128,
        ),
        652, ["semantic"],
    ),
    (
        "rdm-768",
        ldm(
            cross(448, [1, 2, 3, 4], 768, [4, 2, 1], 16), first_stage("AutoencoderKL", [1, 1, 2, 2, 4], 16, [16]),
            {"target": "torch.nn.Identity"},
            cond_stage_key="nix", conditioning_key="crossattn", scale_factor=0.22765929, image_size=48,
        ),
        1732, ["context"],
    ),
    ("sd-2-v", sd2(parameterization="v", image_size=96), 946 + 292, ["text"]),
    (
        "sd-inpainting",
        ldm(
            cross(320, [1, 2, 4, 4], 768, [4, 2, 1], 9, out_channels=4, num_heads=8),
            KL8, embedder("FrozenCLIPEmbedder"),
            kind="LatentInpaintDiffusion", cond_stage_key="txt", conditioning_key="hybrid", scale_factor=0.18215,
            finetune_keys=None, concat_keys=["mask", "masked_image"], masked_image_key="masked_image",
        ),
        946 + 196, ["text", "masked-image"],
    ),
    ("sdxl-refiner", refiner(), 1468 + 389, ["text", "pooled", "sizes"]),
]  # fmt: skip


class _Everything(dict[str, LazyTensor]):
    """A file of which a plan can ask whether a text encoder is in it, before its keys are known."""

    def __iter__(self) -> Any:
        yield from ("cond_stage_model.transformer.text_model.x", "cond_stage_model.model.x")
        yield from ("conditioner.embedders.0.model.x",)


@pytest.mark.parametrize(("name", "config", "total", "inputs"), FAMILY, ids=[case[0] for case in FAMILY])
def test_a_full_size_model(name: str, config: Any, total: int, inputs: list[str]) -> None:
    plan = CompVisSource(_Everything(), config, name).plan
    tensors = file_of(plan, compose(CompVisSource(_Everything(), config, name).spec))
    averaged = name not in ("txt2img-1p4B", "sd-2-v", "sd-inpainting", "sdxl-refiner")
    if averaged:
        for key in [key for key in tensors if key.startswith("model.")]:
            tensors[shadow(key)] = tensors[key]
        tensors |= {key: shaped(torch.zeros(())) for key in ("model_ema.decay", "model_ema.num_updates")}
    if name == "inpainting_big":
        for key in [key for key in tensors if key.startswith("first_stage_model.")]:
            tensors[key.replace("first_stage_model", "cond_stage_model")] = tensors[key]
    if name == "txt2img-1p4B":
        tensors |= {f"cond_stage_model.transformer.to_logits.{p}": shaped(torch.zeros(3)) for p in ("weight", "bias")}
    if name != "sdxl-refiner":
        for key, value in expected_buffers(Discrete.of(plan.process.config)).items():
            tensors[key] = LazyTensor.of(value.float())
        assert set(BUFFERS) <= tensors.keys()
    assert len(tensors) == total
    source = CompVisSource(tensors, config, name)
    assert list(source.spec.conditioners) == inputs
    for path, part in compose(source.spec).items().items():
        wiring = source.spec.conditioners.get(path.removeprefix("conditioners."))
        if wiring is None or wiring.shares is None:
            check(part, source.tensors(path), path)
    assert not source.inventory.left()


def shaped(tensor: Tensor) -> LazyTensor:
    """Shape and dtype without data."""
    return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda copy: torch.zeros(()))


def file_of(plan: Any, parts: Parts) -> dict[str, LazyTensor]:
    """What a file with exactly the parts' tensors has."""
    found: dict[str, LazyTensor] = {}
    for path, part in parts.items().items():
        state = part.state_dict()
        for native, entry in plan.parts[path].keymap.items():
            written = entry.write(torch.empty(state[native].shape, device="meta"))
            found |= dict(zip(entry.keys, map(shaped, written), strict=True))
    return found


def test_v_prediction_is_read() -> None:
    config = {case[0]: case[1] for case in FAMILY}["sd-2-v"]
    spec = CompVisSource(_Everything(), config, "sd2").spec
    assert ldmkit.get("process", "discrete").of(spec.process.config).prediction == "v"
    assert spec.conditioners["text"].config["layer"] == "penultimate"
