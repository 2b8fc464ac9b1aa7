"""Why tensors of a published file may be left unread."""

from __future__ import annotations


def ignorable_conditioner_key(key: str) -> str | None:
    """Why a key of a published conditioner (with or without its prefix) may be left unread; None if it may not."""
    last = key.rsplit(".", 1)[-1]
    if last in ("position_ids", "attn_mask"):
        return "a constant that older versions stored"
    if last == "logit_scale":
        return "training only: temperature of the contrastive loss"
    if ".to_logits." in f".{key}":
        return "training only: head of the language model"
    if last == "text_projection" or key.endswith("text_projection.weight"):
        return "projection of the pooled state, which this model does not read"
    if ".visual." in f".{key}" or key.startswith(("vision_model.", "visual_projection.")):
        return "picture tower of the text model"
    if key.endswith("encoder.embed_tokens.weight"):
        return "the same tensor as shared.weight"
    return None


def ignorable_vae_key(key: str) -> str | None:
    """Why a key of a published first stage (without prefix) may be left unread; None if it may not."""
    if key.startswith("loss."):
        return "training only: perceptual loss and discriminator"
    if key in ("quantize.used", "quantize.unknown_index"):
        return "renumbering of codebook indices, which no picture depends on"
    if key.startswith(("model_ema.", "ema.")):
        return "averaged copy of the weights"
    if key == "colorize":
        return "projection for showing label maps"
    return None
