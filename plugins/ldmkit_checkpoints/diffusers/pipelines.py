"""diffusers' pipelines by class name: the supported ones, and how others are recognised."""

from __future__ import annotations

import re

from ldmkit import SourceError, shown, suggest

PIPELINES = frozenset(
    [
        *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
        *("StableDiffusionControlNetPipeline", "StableDiffusionControlNetImg2ImgPipeline"),
        *("StableDiffusionControlNetInpaintPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        *("StableDiffusionXLInpaintPipeline", "StableDiffusionXLControlNetPipeline", "LDMPipeline", "DDPMPipeline"),
        *("DDIMPipeline", "LDMTextToImagePipeline", "LDMSuperResolutionPipeline", "StableDiffusionGLIGENPipeline"),
        *("StableDiffusionAdapterPipeline", "StableDiffusionXLAdapterPipeline"),
        *("StableDiffusionXLControlNetUnionPipeline", "StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline"),
    ]
)

_FAMILIES = re.compile(
    r"(AceStep|Allegro|AltDiffusion|Amused|Anima|AnyFlow|AudioDiffusion|AudioLDM|AuraFlow|BlipDiffusion|Bria"
    r"|Chroma|ChronoEdit|CogV|CogView|ConsisID|ConsistencyModel|Cosmos|CycleDiffusion|DanceDiffusion|DiT|Diffusion"
    r"|DreamLite|EasyAnimate|Echo|ErnieImage|Flux|GlmImage|Helios|HiDream|Hunyuan|I2VGen|IF|Ideogram|ImageText|Joy"
    r"|Kandinsky|KarrasVe|Kolors|Krea|LEdits|LLaDA|LTX|LatentConsistency|Latte|LongCat|Lucy|Lumina|Marigold|MiniMax"
    r"|Mochi|Modular|Motif|MusicLDM|Nucleus|OmniGen|Onnx|Ovis|PIA|PNDM|PRX|PaintByExample|PixArt|Qwen|RFD4|RePaint|Sana"
    r"|ScoreSdeVe|SemanticStable|ShapE|SkyReels|SpectrogramDiffusion|Stable|TextToVideo|UnCLIP|UnDiffuser|UniDiffuser"
    r"|VQDiffusion|VersatileDiffusion|VideoToVideo|VisualCloze|Wan|Wuerstchen|ZImage)\w*Pipeline\w*"
)
"""Words that the names of diffusers' pipelines begin with."""


def unknown_pipeline(name: object, where: str) -> SourceError:
    """The error for an unsupported pipeline: misspelt, of another family, or unknown."""
    fits = suggest(name, PIPELINES)
    if isinstance(name, str) and not fits.startswith("did") and _FAMILIES.fullmatch(name):
        what = f"{name!r} is a diffusers pipeline that ldmkit does not support"
        return SourceError("unsupported", what, where=where, fits=f"diffusers itself; {fits}")
    return SourceError("unsupported", f"unknown pipeline {shown(name)}", where=where, fits=fits)
