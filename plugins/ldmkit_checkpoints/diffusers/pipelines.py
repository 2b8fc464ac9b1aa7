"""Pipelines of diffusers by their class names: those that are read here, and how all the others are told."""

from __future__ import annotations

import re

from ldmkit.errors import SourceError, shown, suggest

PIPELINES = frozenset(
    [
        *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
        *("StableDiffusionControlNetPipeline", "StableDiffusionControlNetImg2ImgPipeline"),
        *("StableDiffusionControlNetInpaintPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        *("StableDiffusionXLInpaintPipeline", "StableDiffusionXLControlNetPipeline", "LDMPipeline", "DDPMPipeline"),
        *("DDIMPipeline", "LDMTextToImagePipeline", "LDMSuperResolutionPipeline"),
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
"""Pipelines of diffusers begin with these words, and a few go on after the word itself."""


def unknown_pipeline(name: object, where: str) -> SourceError:
    """The error for a pipeline that is not read: a misspelt one, another family's real one, or one of a stranger's."""
    fits = suggest(name, PIPELINES)
    if isinstance(name, str) and not fits.startswith("did") and _FAMILIES.fullmatch(name):
        what = f"{name!r} is a real pipeline of diffusers, of a kind that ldmkit does not read"
        return SourceError("unsupported", what, where=where, fits=f"diffusers itself; {fits}")
    return SourceError("unsupported", f"the pipeline {shown(name)} is not known", where=where, fits=fits)
