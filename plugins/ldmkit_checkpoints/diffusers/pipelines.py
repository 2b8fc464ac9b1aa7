"""diffusers' pipelines by class name: the supported ones, and how others are recognised."""

from __future__ import annotations

import re

from ldmkit import SourceError, shown, suggest

PIPELINES = frozenset(
    [
        *("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline", "IFSuperResolutionPipeline"),
        *("IFImg2ImgSuperResolutionPipeline", "IFInpaintingSuperResolutionPipeline", "StableDiffusionUpscalePipeline"),
        *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
        *("StableDiffusionControlNetPipeline", "StableDiffusionControlNetImg2ImgPipeline"),
        *("StableDiffusionControlNetInpaintPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        *("StableDiffusionXLInpaintPipeline", "StableDiffusionXLControlNetPipeline", "LDMPipeline", "DDPMPipeline"),
        *("DDIMPipeline", "LDMTextToImagePipeline", "LDMSuperResolutionPipeline", "StableDiffusionGLIGENPipeline"),
        *("StableDiffusionAdapterPipeline", "StableDiffusionXLAdapterPipeline"),
        *("StableDiffusionXLControlNetUnionPipeline", "StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline"),
        *("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline", "KandinskyV22PriorPipeline"),
        *("KandinskyV22InpaintPipeline", "KandinskyV22CombinedPipeline", "KandinskyV22Img2ImgCombinedPipeline"),
        *("KandinskyV22InpaintCombinedPipeline", "UnCLIPPipeline", "UnCLIPImageVariationPipeline"),
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


_REASONS = {
    r"KandinskyV22Controlnet\w*": "its U-Net embeds a hint, which ldmkit's does not",
    r"Kandinsky(Prior|Combined|Img2Img|Inpaint)?\w*": "Kandinsky 2.1 reads texts with XLM-RoBERTa, and Kandinsky 3 is"
    " another network; 2.2 is supported",
}
"""Pattern of a name -> why ldmkit does not read it; the first that fits."""


def unknown_pipeline(name: object, where: str) -> SourceError:
    """The error for an unsupported pipeline: misspelt, of another family, or unknown."""
    fits = suggest(name, PIPELINES)
    if isinstance(name, str) and not fits.startswith("did") and _FAMILIES.fullmatch(name):
        reason = next((why for pattern, why in _REASONS.items() if re.fullmatch(pattern, name)), None)
        what = f"{name!r} is a diffusers pipeline that ldmkit does not support" + (f": {reason}" if reason else "")
        return SourceError("unsupported", what, where=where, fits=f"diffusers itself; {fits}")
    return SourceError("unsupported", f"unknown pipeline {shown(name)}", where=where, fits=fits)
