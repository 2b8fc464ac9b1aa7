"""Files of tensors that are not a complete model, recognised by their keys."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ldmkit import SourceError
from ldmkit_checkpoints.unsupported.formats import ADAPTER, UPDATE, Format

_ADAPTER = (
    "the complete model that it was made for, fused with it by the program that reads it: ldmkit does not load it yet"
)

_ALONE = "ldmkit.load_adapter with a file that holds it alone"
_FAMILY = "the program of that family; ldmkit does not load it yet"
_WHOLE = "the same model in float16, bfloat16 or float32"

KINDS = (
    Format(r"^lllite_", "a ControlNet-LLLite", _ADAPTER),
    Format(r"^(id_encoder|pulid_encoder|id_adapter)(\.|$)", "a face adapter (PhotoMaker and its like)", _ADAPTER),
    Format(r"\.to_[kv]_custom_diffusion\.weight$", "Custom Diffusion's keys and values", _ADAPTER),
    Format(r"\.lambda_layer(\.weight)?$", "a T-LoRA of LyCORIS", _ADAPTER),
    Format(
        r"\.lora_mid\.|\.(hada_[wt][12](_[ab])?|lokr_[wt][12](_[ab])?|oft_(blocks|diag)|on_input|dora_scale|diff(_b)?)$",
        "a LyCORIS adapter",
        UPDATE,
    ),
    Format(r"^lora_(unet|te\d?|transformer)_|\.lora_(down|up)\.weight$", "a LoRA with kohya's keys", UPDATE),
    Format(
        r"\.lora_[AB]\.(\w+\.)?weight$|[._]lora\d?\.(down|up)\.weight$|\.lora_magnitude_vector|\.lora_linear_layer\.",
        "a LoRA with peft's keys",
        UPDATE,
    ),
    Format(
        r"^(emb_params|string_to_param(\.|$)|string_to_token|clip_[lg]$|t5xxl$|<[^>]+>$)",
        "a textual inversion embedding",
        "its model: ldmkit.load(model).with_embedding(file), or ldmkit sample MODEL --embedding FILE",
    ),
    Format(r"^(ip_adapter|image_proj)(\.|$)|\.to_[kv]_ip\.weight$", "an IP-Adapter", ADAPTER),
    Format(r"^(adapter\.)?body\.\d+\.(block1|resnets)", "a T2I-Adapter among other things", _ALONE),
    Format(r"(^|\.)fuser\.(alpha_attn|linear)|^position_net\.", "a GLIGEN model", _FAMILY),
    Format(r"^(\d+\.)?\d+\.linear\.\d+\.weight$|^\d{3,4}(\.|$)|^layer_structure$", "a hypernetwork", _ADAPTER),
    Format(r"^(ctrl_to_base|base_to_ctrl|control_to_base|down_zero_convs_)", "a ControlNet-XS", _FAMILY),
    Format(r"^style_embedding$", "the style adapter of T2I-Adapter", _ADAPTER),
    Format(r"^spatial_feat_mapping\.|^seq_proj$", "the fuser of CoAdapters", _ADAPTER),
    Format(r"^brushnet_", "a BrushNet", _FAMILY),
    Format(r"^(down_blocks|mid_block|up_blocks)\..*\.delta$", "spectral shifts of weights (SVDiff)", _ADAPTER),
    Format(r"^(control_add_embedding|task_embedding|transformer_layes)", "a ControlNet Union among others", _ALONE),
    Format(
        r"^(controlnet_blocks\.|controlnet_x_embedder\.|controlnet_double_blocks\.)",
        "a ControlNet of FLUX or SD 3",
        _FAMILY,
    ),
    Format(
        r"(^|\.)(enc|dec)\.\d+x\d+_(conv|block|down|up|in)\d*\.",
        "a network of EDM (NVlabs)",
        "its own program; of the same kind, ldmkit reads the U-Nets of guided-diffusion, and has the process 'edm'",
    ),
    Format(r"(^|\.)motion_modules\.", "an AnimateDiff motion module, or a U-Net that contains them", _FAMILY),
    Format(
        r"\.(time_stack|time_mixer|temporal_transformer_blocks|spatial_res_block)\.", "Stable Video Diffusion", _FAMILY
    ),
    Format(
        r"^(down_blocks|mid_block|up_blocks)\..*\.?(temp_convs|temp_attentions)\.|^transformer_in\.",
        "a video U-Net",
        _FAMILY,
    ),
    Format(r"(^|\.)distilled_guidance_layer\.", "a Chroma transformer", _FAMILY),
    Format(
        r"(^|\.)(double_blocks\.\d+\.img_attn_qkv|(txt_in|context_embedder)\.\w*token_refiner)",
        "a HunyuanVideo transformer",
        _FAMILY,
    ),
    Format(r"(^|\.)double_blocks\.\d+\.(img|txt)_attn", "a FLUX transformer", _FAMILY),
    Format(
        r"(^|\.)(cond_seq_linear\.|double_layers\.\d+\.|joint_transformer_blocks\.)", "an AuraFlow transformer", _FAMILY
    ),
    Format(r"(^|\.)transformer_blocks\.\d+\.(img|txt)_mod\.", "a transformer of Qwen-Image's kind", _FAMILY),
    Format(
        r"(^|\.)single_transformer_blocks\.\d+\.",
        "a FLUX-like transformer with diffusers' keys",
        _FAMILY,
    ),
    Format(
        r"(^|\.)joint_blocks\.\d+\.|^transformer_blocks\.\d+\.attn\.add_q_proj",
        "a Stable Diffusion 3 transformer",
        _FAMILY,
    ),
    Format(r"(^|\.)patchify_proj\.", "an LTX-Video transformer", _FAMILY),
    Format(r"(^|\.)(text_embedding_padding$|style_embedder\.|mlp_t5\.)", "a Hunyuan-DiT transformer", _FAMILY),
    Format(
        r"(^|\.)(cap_embedder\.|head\.modulation$|blocks\.\d+\.attn\.qkv_[xy])",
        "a transformer of Lumina, Wan or Mochi",
        _FAMILY,
    ),
    Format(
        r"(^|\.)(pos_embed\.proj\.|adaln_single\.|caption_projection\.|t_block\.1|y_embedder\.y_proj)",
        "a transformer of PixArt's kind (PixArt, DiT, Sana, LTX-Video)",
        _FAMILY,
    ),
    Format(r"^(effnet_mapper|clip_txt(_pooled)?_mapper|clip_mapper|vquantizer\.)", "a Stable Cascade stage", _FAMILY),
    Format(
        r"^(conv_first\.|RRDB_trunk|body\.\d+\.(rdb1\.|weight$)|model\.1\.sub\.\d+\.|layers\.\d+\.residual_group\.)"
        r"|^params(_ema)?\.(conv_first|body|model)\.",
        "an image upscaler (ESRGAN and similar)",
        "an upscaling program",
    ),
    Format(r"^(params_ema\.)?stylegan_decoder\.|^fuse_convs_dict\.", "a face restorer", "the program it was made for"),
    Format(r"(^|\.)scaled_fp8$|\.(scale_weight|weight_scale)$", "weights in 8-bit floats with separate scales", _WHOLE),
    Format(
        r"\.quant_state\.bitsandbytes|\.absmax$|\.SCB$|\.qweight$",
        "weights in 4 or 8 bits (bitsandbytes, GPTQ)",
        _WHOLE,
    ),
    Format(
        r"^(encoder|decoder)\.(middle\.\d+\.residual|stages\.|\w+_blocks?\.\d+\.(\d+\.|norm\d\.|residual))"
        r"|^(en|de)coder\..*\.gamma$|\.time_(mix_conv|conv_out)\.|^(en|de)coder\..*conv(_in|\d)?\.conv\.",
        "a video first stage, or one of another family",
        _FAMILY,
    ),
    Format(
        r"^(taesd_)?(encoder|decoder)\.(layers\.)?\d+\.(conv\.\d+\.)?(weight|bias)$|^\d+\.(conv\.\d+\.)?weight$",
        "a tiny autoencoder (TAESD), or half of one",
        "ldmkit.load_codec with the folder that holds its encoder and decoder, or diffusers' AutoencoderTiny folder",
    ),
    Format(
        r"^(controlnet_cond_embedding|controlnet_down_blocks)\.",
        "a ControlNet with diffusers' keys",
        "ldmkit.load_adapter with its folder, config.json included",
        "adapter-only",
    ),
    Format(r"^(first_stage_model|vae)\.", "a first stage with a model's prefix", "the file of the complete model"),
    Format(
        r"^(en|de)coder\.(down|up)_blocks\.\d+\.",
        "a first stage with diffusers' keys",
        "ldmkit.load_codec with its folder, config.json included",
        "codec-only",
    ),
    Format(
        r"^(model\.diffusion_model\.)?(input_blocks\.0\.0|down_blocks\.\d+)\.",
        "a U-Net alone",
        "the complete model: with its first stage and text encoder",
        "denoiser-only",
    ),
    Format(
        r"^(model\.)?layers\.\d+\.(self_attn|input_layernorm)\.|^model\.embed_tokens\.",
        "a language model, or another transformer",
        "transformers",
    ),
    Format(r"^(vision_model|visual)\.", "a CLIP vision tower, or a complete CLIP", "the complete model"),
    Format(r"^(shared\.weight$|encoder\.block\.\d+\.layer\.)", "a T5 text encoder alone", "the complete model"),
    Format(
        r"^(text_model\.|transformer\.text_model\.|(embeddings\.)?token_embedding\.|encoder\.layers\.\d+\.(self_attn|mlp)\."
        r"|(model\.)?transformer\.resblocks\.|cond_stage_model\.|conditioner\.|te\d?_)",
        "a text encoder alone",
        "the complete model",
    ),
    Format(
        r"(^|\.)(\w*transformer_blocks|blocks|layers|\w+_stream_blocks|noise_refiner)\.\d+\.\w*(attn|attention|norm|mlp|ff)",
        "a transformer of an unknown family",
        _FAMILY,
    ),
    Format(
        r"^(optimizer_states|param_groups|shadow_params|optimizer)(\.|$)",
        "a trainer's state without model weights",
        "the model that the trainer saved",
    ),
)
"""Adapters come before the networks whose keys they contain."""

MODELS = (
    Format(r"\.(time_stack|time_mixer)\.", "Stable Video Diffusion", _FAMILY),
    Format(r"motion_modules\.|\.temporal_transformer\.", "a model with AnimateDiff motion modules", _FAMILY),
    Format(r"^cc_projection\.", "Zero-1-to-3", _FAMILY),
    Format(r"^depth_model\.", "Stable Diffusion 2's depth model", "diffusers (StableDiffusionDepth2ImgPipeline)"),
    Format(r"^low_scale_model\.", "Stable Diffusion's upscaler", "diffusers (StableDiffusionUpscalePipeline)"),
    Format(r"^(embedder|noise_augmentor)\.", "Stable unCLIP", "diffusers (StableUnCLIPPipeline)"),
    Format(
        r"^cond_stage_model\.((model\.)?visual|(transformer\.)?vision_model|model\.vision_model)\.",
        "an image-variation model: it is conditioned on a picture instead of a text",
        _FAMILY,
    ),
    Format(
        r"^edm_(mean|std)$",
        "Playground v2.5: SDXL's network with EDM's noise levels and its own latent statistics",
        _FAMILY,
    ),
    Format(r"^edm_vpred\.", "CosXL: SDXL's network with EDM's continuous noise levels", _FAMILY),
    Format(r"\.time_embed\.cond_proj\.", "a latent consistency model conditioned on the guidance scale", _FAMILY),
    Format(r"(^|\.)fuser\.(alpha_attn|linear)|^position_net\.", "a GLIGEN model", _FAMILY),
    Format(r"(^|\.)scaled_fp8$|\.(scale_weight|weight_scale)$", "a model in 8-bit floats with separate scales", _WHOLE),
    Format(r"\.quant_state\.bitsandbytes|\.absmax$|\.SCB$", "a model in 4 or 8 bits (bitsandbytes)", _WHOLE),
    Format(r"\.lora_[AB]\.|\.lora_(down|up)\.", "a model with an unfused LoRA", "the model with the LoRA fused"),
)
"""Complete models whose U-Net keys look like a supported model's, but which are not supported."""


def format_of(keys: Iterable[str], kinds: Iterable[Format] = KINDS) -> Format | None:
    """The first format that any key matches; None for what may be a complete model or a first stage."""
    names = list(keys)
    for kind in kinds:
        pattern = re.compile(kind.sign)
        if any(pattern.search(key) for key in names):
            return kind
    return None


def refuse_unsupported_tensors(keys: Iterable[str], where: str) -> None:
    """Explain what a file of tensors is, unless it may be a complete model.

    Raises:
        SourceError: `unsupported`, `denoiser-only`, `codec-only`, `adapter-only`.
    """
    names = list(keys)
    unet = "model.diffusion_model."
    if any(key.startswith(unet + "input_blocks.") for key in names):
        if (model := format_of(names, MODELS)) is not None:
            raise SourceError(model.code, f"it is {model.name}", where=where, fits=model.fits)
        missing = {"first stage": ("first_stage_model.", "vae.")}
        if any(".attn2.to_k." in key for key in names):  # without cross-attention there may have been none
            missing["text encoder"] = ("cond_stage_model.", "conditioner.")
        absent = [name for name, heads in missing.items() if not any(key.startswith(heads) for key in names)]
        if absent:
            alone = "a U-Net alone" if len(absent) == len(missing) else f"a model without its {absent[0]}"
            fits = "the complete model; or config= with the original yaml, if that names no such part"
            raise SourceError("denoiser-only", f"it is {alone}", where=where, fits=fits)
        return
    heads = {key.partition(".")[0] for key in names}
    if "first_stage_model" in heads and heads & {"cond_stage_model", "conditioner"}:
        raise SourceError("unsupported", "it is a model without its U-Net", where=where, fits="the complete model")
    if (kind := format_of(names)) is not None:
        raise SourceError(kind.code, f"it is {kind.name}", where=where, fits=kind.fits)
