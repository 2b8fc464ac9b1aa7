"""Parts from the components of a diffusers folder: vae, unet, text encoders, ControlNets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ldmkit_adapters.controlnet import ControlNetConfig
from ldmkit_codecs.consistency import ConsistencyConfig
from ldmkit_codecs.kl import KLConfig
from ldmkit_codecs.tiny import TinyConfig
from ldmkit_codecs.vq import VQConfig
from ldmkit_conditioners.clip_tower import ClipConfig
from ldmkit_conditioners.ldm_text import LdmTextConfig
from ldmkit_conditioners.t5_text import T5TextConfig
from ldmkit_denoisers.config import UNetConfig
from ldmkit_denoisers.prior import PriorConfig

from ldmkit import CompositionError, ConditionerSpec, PartSpec, SlotPart, SourceError
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.diffusers.consistency import CLASS as CONSISTENCY
from ldmkit_checkpoints.diffusers.consistency import consistency_diffusers_keys, consistency_from_diffusers
from ldmkit_checkpoints.diffusers.controlnet import controlnet_diffusers, controlnet_from_diffusers
from ldmkit_checkpoints.diffusers.ldm_bert import bert_diffusers_keys, ldm_bert_from_diffusers
from ldmkit_checkpoints.diffusers.tiny import tiny_diffusers_keys, tiny_from_diffusers
from ldmkit_checkpoints.diffusers.unclip.prior import STATISTICS, prior_diffusers_keys, prior_from_diffusers
from ldmkit_checkpoints.diffusers.unet_config import diffusers_options, unet_from_diffusers
from ldmkit_checkpoints.diffusers.unet_keys import unet_diffusers
from ldmkit_checkpoints.diffusers.vae_config import kl_from_diffusers, vq_from_diffusers
from ldmkit_checkpoints.diffusers.vae_keys import has_old_attention, kl_diffusers_keys, vq_diffusers_keys
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import KeyMap
from ldmkit_checkpoints.transformers.text_config import clip_from_hf, t5_from_hf
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys, clip_hf_level, t5_keys

CODECS = ("AutoencoderKL", "VQModel", "AutoencoderTiny", CONSISTENCY)
UNETS = ("UNet2DModel", "UNet2DConditionModel")
TEXTS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "LDMBertModel")


class Component(NamedTuple):
    """A part's spec and key map, the shapes that other parts need, and what fills an adapter's slots."""

    spec: PartSpec
    keymap: KeyMap
    channels: int = 0
    factor: int = 1
    slots: Mapping[str, SlotPart] = MappingProxyType({})


def codec_component(
    config: Mapping[str, Any], keys: Iterable[str], where: str, quantises: bool | None = None
) -> Component:
    """One of `CODECS`; `quantises` as for `vq_from_diffusers`.

    Raises:
        SourceError: an unknown class or an unsupported option.
    """
    name = config.get("_class_name", "AutoencoderKL")
    old = has_old_attention(keys)
    if name == "AutoencoderKL":
        kl = KLConfig.of(native := kl_from_diffusers(config, where))
        return Component(PartSpec(type="kl", config=native), kl_diffusers_keys(kl, old), kl.latent_channels, kl.factor)
    if name == "VQModel":
        vq = VQConfig.of(native := vq_from_diffusers(config, where, quantises))
        return Component(PartSpec(type="vq", config=native), vq_diffusers_keys(vq, old), vq.latent_channels, vq.factor)
    if name == "AutoencoderTiny":
        tiny = TinyConfig.of(native := tiny_from_diffusers(config, where))
        factor = 2 ** (len(tiny.encoder_blocks) - 1)
        return Component(PartSpec(type="tiny", config=native), tiny_diffusers_keys(tiny), tiny.latent_channels, factor)
    if name == CONSISTENCY:
        drawn = ConsistencyConfig.of(native := consistency_from_diffusers(config, where))
        keymap = consistency_diffusers_keys(drawn, old)
        return Component(PartSpec(type="consistency", config=native), keymap, drawn.latent_channels, drawn.factor)
    raise SourceError("unsupported", f"unknown codec {name!r}", where=where, fits=", ".join(CODECS))


def unet_component(
    config: Mapping[str, Any], keys: Iterable[str], latent_channels: int | None, join: str
) -> tuple[Component, UNetConfig]:
    """UNet2DModel or UNet2DConditionModel; `join` says how several texts are joined in its context.

    Raises:
        SourceError: an unsupported option.
        CompositionError: `channel-mismatch`: the codec's latents have more channels than the U-Net takes.
    """
    if latent_channels is not None and latent_channels > config.get("in_channels", latent_channels):
        what = f"the codec has {latent_channels} latent channels, the U-Net takes {config['in_channels']}"
        raise CompositionError("channel-mismatch", what, where="unet/config.json: in_channels")
    unet = unet_from_diffusers(config, latent_channels).model_copy(update={"context_join": join})
    spec = PartSpec(type="unet", config=unet.model_dump(mode="json", exclude_defaults=True))
    return Component(spec, unet_diffusers(unet, **diffusers_options(config, keys)), unet.channels), unet


def prior_component(config: Mapping[str, Any], where: str, alone: Inventory | None = None) -> Component:
    """PriorTransformer; `alone` is its file, if no codec reads the statistics in it.

    Raises:
        SourceError: an unsupported option.
    """
    if alone is not None:
        alone.ignore(STATISTICS, "statistics of the embeddings, which a codec has")
    prior = PriorConfig.of(native := prior_from_diffusers(config, where))
    return Component(PartSpec(type="prior", config=native), prior_diffusers_keys(prior), prior.channels)


def controlnet_component(config: Mapping[str, Any], join: str) -> Component:
    """ControlNetModel."""
    control: ControlNetConfig = controlnet_from_diffusers(config)
    control = control.model_copy(update={"unet": control.unet.model_copy(update={"context_join": join})})
    spec = PartSpec(type="controlnet", config=control.model_dump(mode="json", exclude_defaults=True))
    keymap = controlnet_diffusers(control, diffusers_options(config)["vector"])
    return Component(spec, keymap, slots=hint_of(control.hint_channels))


def text_component(
    config: Mapping[str, Any],
    keys: Iterable[str],
    tokenizer: Path | None,
    where: str,
    cls: str | None = None,
    **wiring: Any,
) -> Component:
    """A text encoder as a conditioner for its tokens.

    Args:
        tokenizer: folder of the tokenizer, which defines the special tokens, if any.
        cls: class used by the pipeline; None: as the config says.
        wiring: further fields of the conditioner's spec; `layer` and `final_norm` go into its config.

    Raises:
        SourceError: an unknown model.
    """
    listed = config.get("architectures") or [config.get("_class_name") or cls]
    stated = str(listed if isinstance(listed, str) else next(iter(listed)))
    name = cls if cls is not None and stated in (*TEXTS, "CLIPModel") else stated
    own = {key: wiring.pop(key) for key in ("layer", "final_norm", "masked") if key in wiring}
    if name in ("CLIPTextModel", "CLIPTextModelWithProjection"):
        tower = clip_from_hf(config, tokenizer, where, name == "CLIPTextModelWithProjection")
        keymap = clip_hf_keys(ClipConfig.of(tower), clip_hf_level(keys))
        kind, native = "clip-text", tower | own
    elif name == "T5EncoderModel":
        native = t5_from_hf(config, where=where, tokenizer=tokenizer) | {"masked": False}  # as diffusers reads it
        kind, keymap = "t5-text", t5_keys(T5TextConfig.of(native))
    elif name == "LDMBertModel":
        native = ldm_bert_from_diffusers(config, tokenizer, where)
        kind, keymap = "ldm-text", bert_diffusers_keys(LdmTextConfig.of(native))
    else:
        raise SourceError("unsupported", f"unknown text encoder {name!r}", where=where, fits=", ".join(TEXTS))
    return Component(ConditionerSpec(type=kind, config=native, **wiring), keymap)
