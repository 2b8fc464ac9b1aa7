"""`did you mean` is said to slips of the pen, and to no name that is another's real one, wherever names are known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import diffusers
import pytest
from ldmkit_checkpoints.compvis import ldm, sgm, text_config, vae_config
from ldmkit_checkpoints.compvis.process import _PREDICTIONS, _SCALINGS, _SCHEDULES
from ldmkit_checkpoints.diffusers.pipelines import PIPELINES
from ldmkit_checkpoints.diffusers.scheduler import CLASSES, REPLACED

import ldmkit
from ldmkit.errors import suggest
from ldmkit.plugins.catalogue import catalogue

SLIPS = [
    *(("StableDiffusonPipeline", "StableDiffusionPipeline"), ("stablediffusionpipeline", "StableDiffusionPipeline")),
    *(("StableDifusionXLPipelin", "StableDiffusionXLPipeline"), ("steps ", "steps"), ("step", "steps")),
    *(("eulr", "euler"), ("Euler a", "euler-ancestral"), ("dpmpp_2m", "dpmpp-2m"), ("masked_image", "masked-image")),
    *(("cos", "cosine"), ("minsnr", "min-snr"), ("dgo", "dog"), ("lable", "label"), ("txt", "text"), ("DDIM", "ddim")),
    *(("optimizer", "optimiser"), ("flaot32", "float32"), ("discreet", "discrete"), ("n_clases", "n_classes")),
]


@pytest.mark.parametrize(("word", "meant"), SLIPS)
def test_slips(word: str, meant: str) -> None:
    known = [*PIPELINES, "steps", "euler", "euler-ancestral", "dpmpp-2m", "dpmpp-sde", "masked-image", "ddim", "cosine"]
    known += ["constant", "min-snr", "dog", "cat", "label", "text", "optimiser", "float32", "float16", "discrete"]
    assert suggest(word, [*known, "n_classes"]) == f"did you mean {meant!r}?"


LDM = "ldm.models.diffusion.ddpm."


def names(kind: str) -> list[str]:
    return [entry.name for entry in catalogue() if entry.kind == kind]


def classes(end: str) -> list[str]:
    listed = {name for group in diffusers._import_structure.values() for name in group}
    return sorted(name for name in listed if end in name)


SAMPLERS = (
    *("heunpp2", "exp_heun_2_x0", "dpm_2_ancestral", "dpm_fast", "dpm_adaptive", "dpmpp_2m_sde_heun"),
    *("dpmpp_3m_sde", "dpmpp_3m_cfg_pp", "heun_cfg_pp", "ddim_cfg_pp", "ipndm_v"),
    *("res_multistep", "gradient_estimation", "er_sde", "seeds_2", "seeds_3", "sa_solver", "scm", "edm", "uni_pc_bh2"),
    *("dpm", "adams", "rk45", "k_dpm_2_a", "DDIM-CFG++"),
)
GRIDS = ("normal", "sgm_uniform", "simple", "ddim_uniform", "beta", "kl_optimal", "polyexponential", "ays")
GUIDANCE = ("apg", "pag", "seg", "slg", "cfgpp", "cfg++", "tcfg", "adg", "acg", "autoguidance", "perp-neg")
CODECS = ("vae", "dc", "consistency", "taesd", "vqgan", "oobleck", "autoencoder-kl", "rae", "kl2", "vqvae2")
ADAPTERS = ("ip-adapter", "t2i-adapter", "controlnet-xs", "controlnet-lllite", "gligen", "hypernetwork", "ia3")
MODELS = ("UNet2DModel", "UNet2DConditionModel", "VQModel", "ControlNetModel", "AutoencoderKL")
DDPM = (
    *("LatentDepth2ImageDiffusion", "LatentUpscaleDiffusion", "LatentUpscaleFinetuneDiffusion", "DiffusionWrapper"),
    *("ImageEmbeddingConditionedLatentDiffusion", "Layout2ImgDiffusion", "LatentTextDiffusion", "DDPM3D"),
)
OTHERS: dict[str, tuple[Iterable[str], Iterable[str]]] = {
    "pipelines": (classes("Pipeline"), PIPELINES),
    "schedulers": (classes("Scheduler"), [*CLASSES, *REPLACED]),
    "models": (classes("Model"), MODELS),
    "samplers": (SAMPLERS, names("sampler")),
    "grids": (GRIDS, names("grid")),
    "guidance": (GUIDANCE, names("guidance")),
    "codecs": (CODECS, names("codec")),
    "denoisers": (["dit", "mmdit", "flux", "uvit", "sd3", "pixart", "unet3d", "unet1d"], names("denoiser")),
    "adapters": (ADAPTERS, names("adapter")),
    "conditioners": (["clip-vision", "t5", "umt5", "clip-image", "gemma", "layout", "canny"], names("conditioner")),
    "ldm": (
        [LDM + name for name in DDPM],
        [*ldm.TARGETS, *sgm.TARGETS, *vae_config.TARGETS],
    ),
    "text": (
        ["FrozenCLIPT5Encoder", "FrozenOpenCLIPImageEmbedder", "FrozenCLIPImageEmbedder", "FrozenT5Embedder",
         "FrozenCLIPTextEmbedder", "FrozenByT5Embedder", "FrozenOpenCLIPEmbedder3", "LowScaleEncoder"],
        ["FrozenCLIPEmbedder", "FrozenOpenCLIPEmbedder", "FrozenOpenCLIPEmbedder2", "BERTEmbedder", "ClassEmbedder"],
    ),
    "open-clip": (["ViT-g-14", "ViT-L-14", "ViT-B-32", "ViT-e-14", "ViT-H-16", "RN50"], text_config.OPEN_CLIP),
    "scalings": (["EDMScaling", "VScalingWithEDMcNoise", "RFScaling", "X0Scaling"], _SCALINGS),
    "predictions": (["edm", "flow", "rf", "u", "mu", "score"], _PREDICTIONS),
    "betas": (["squaredcos_cap_v2", "sigmoid", "laplace", "exponential", "quad"], _SCHEDULES),
    "dtypes": (["float8", "float128", "int16", "complex64", "bfloat8", "uint16"], ["float16", "float32", "bfloat16"]),
}  # fmt: skip


@pytest.mark.parametrize("where", OTHERS)
def test_real_names_of_something_else_are_no_slips(where: str) -> None:
    real, known = OTHERS[where]
    ours = {re.sub(r"[-_]", "", name).lower() for name in known}  # in another spelling they are no other names
    others = [name for name in real if re.sub(r"[-_]", "", name).lower() not in ours]
    wrong = {name: suggest(name, known) for name in others}
    assert wrong, "some are not ours"
    assert {name: said for name, said in wrong.items() if said.startswith("did")} == {}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("euler_cfg_pp", "euler-cfg-pp"),
        ("euler_ancestral_cfg_pp", "euler-ancestral-cfg-pp"),
        ("dpmpp_2m_cfg_pp", "dpmpp-2m-cfg-pp"),
        ("dpmpp_2s_ancestral_cfg_pp", "dpmpp-2s-ancestral-cfg-pp"),
        ("cfg-zero", "cfg-zero-star"),
    ],
)
def test_what_others_call_the_same_is_found(theirs: str, ours: str) -> None:
    assert suggest(theirs, [*names("sampler"), *names("guidance")]) == f"did you mean {ours!r}?"


@pytest.mark.parametrize(
    "name", [n for n in classes("Pipeline") if n not in PIPELINES and not re.search("Output|Blocks|Config|^Auto", n)]
)
def test_every_pipeline_of_diffusers_is_known_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ldmkit.SourceError, match=rf"'{name}' is a diffusers pipeline.*does not support") as caught:
        ldmkit.load(tmp_path)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("MyOwnPipeline", "unknown pipeline 'MyOwnPipeline' (known:"),
        ("StableDiffusonPipeline", "did you mean 'StableDiffusionPipeline'"),
    ],
)
def test_a_strangers_pipeline_and_a_misspelt_one(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ldmkit.SourceError) as caught:
        ldmkit.load(tmp_path)
    assert says in str(caught.value)


@pytest.mark.parametrize("word", ["", " ", "\0", "é" * 999, "a" * 5000, None, 5, "A" * 999])
def test_any_word_has_an_answer(word: object) -> None:
    assert suggest(word, [f"name-{i}" for i in range(1000)]).startswith(("did", "known"))
    assert suggest(word, []) == "there are none"
