"""Kandinsky 2.2's decoder: from the embedding of a picture to a picture, in the latents of MoVQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import ConditionerSpec, PartSpec, PipelineSpec, SourceError
from ldmkit_checkpoints.conditioners import MASKED_IMAGE
from ldmkit_checkpoints.diffusers.encoder import EncoderFolder, EncoderParts
from ldmkit_checkpoints.diffusers.parts import Component

INPAINT = "KandinskyV22InpaintPipeline"
PIPELINES = ("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline", INPAINT)
PRIORS = ("KandinskyV22PriorPipeline",)
COMBINED = tuple(f"KandinskyV22{kind}CombinedPipeline" for kind in ("", "Img2Img", "Inpaint"))
"""Prior and decoder in one folder, whose names of the prior's components begin with `prior_`."""

GUIDANCE, STEPS, SIZE = 4.0, 100, (512, 512)
"""Defaults in the code of these pipelines."""


class KandinskyFolder(EncoderFolder):
    """A decoder: U-Net, scheduler and MoVQ.

    The folder of the prior holds the encoder of pictures. Without it the condition is an embedding, and so is its
    negative, which the prior's pipeline gives; with it the negative is the embedding of a blank picture.

    Args:
        encoder: components of the encoder and of its preprocessing, if they are in the same folder.
        folder, ema, variant: as for `DiffusersFolder`.
    """

    def __init__(
        self, folder: Path, ema: bool | None = None, variant: str | None = None, encoder: EncoderParts | None = None
    ) -> None:
        self.encoder = encoder
        super().__init__(folder, ema, variant)

    def _compose(self) -> PipelineSpec:
        spec = super()._compose()
        codec = spec.codec
        if codec.type == "vq":  # the pipeline rounds sides up, so that the U-Net's coarsest level has whole positions
            factor = 2 ** (len(codec.config["widths"]) - 1)
            codec = codec.model_copy(update={"config": {**codec.config, "sides": factor**2}})
        guidance, steps = PartSpec(type="cfg", config={"scale": GUIDANCE}), spec.process.config.get("steps", 1000)
        new = {"guidance": guidance, "steps": min(STEPS, steps), "size": SIZE}
        return spec.model_copy(update={"codec": codec, "defaults": spec.defaults.model_copy(update=new)})

    def _conditioners(self, codec: Component, unet: UNetConfig) -> dict[str, ConditionerSpec]:
        inpaints = "Inpaint" in str(self.index["_class_name"])
        plane = codec.channels + 1 if inpaints else 0
        if unet.image_dim is None or unet.vector != "none" or unet.plane_channels != plane or unet.context_source:
            what = "the U-Net reads something other than the embedding of a picture" + " and a hole" * inpaints
            fits = f"encoder_hid_dim_type image_proj, addition_embed_type image, in_channels {codec.channels + plane}"
            raise SourceError("unsupported", what, where=f"{self.folder}/unet/config.json", fits=fits)
        config: dict[str, Any] = {"dim": unet.image_dim, "null": "none"}
        if self.encoder is not None:
            config |= {"encoder": self._encoder_fields(), "null": "blank"}
        found = {"image": ConditionerSpec(type="picture-embedding", config=config, slot="image")}
        if inpaints:
            hole = {**MASKED_IMAGE, "order": "latent-mask", "hole": None, "inverted": True, "grown": True}
            masked = {**hole, "latent_channels": codec.channels}
            found["masked-image"] = ConditionerSpec(type="masked-image", config=masked)
            what = "diffusers sets what is kept to noisy latents of the picture after each step"
            self.report.notes.append(f"{what}; here the network draws it from its condition, and the picture keeps it")
        return found
