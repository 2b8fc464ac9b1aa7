"""Keys of published checkpoints that need not be read, with the reason."""

from __future__ import annotations


def ignorable_conditioner_key(key: str) -> str | None:
    """Reason to ignore a conditioner's key (with or without prefix); None if it must be used."""
    last = key.rsplit(".", 1)[-1]
    if last in ("position_ids", "attn_mask"):
        return "constant buffer stored by older versions"
    if last == "logit_scale":
        return "training only: temperature of the contrastive loss"
    if ".to_logits." in f".{key}":
        return "training only: head of the language model"
    if last == "text_projection" or key.endswith("text_projection.weight"):
        return "projection of the pooled state, not used by this model"
    if ".visual." in f".{key}" or key.startswith(("vision_model.", "visual_projection.")):
        return "vision tower of CLIP"
    if key.endswith("encoder.embed_tokens.weight"):
        return "the same tensor as shared.weight"
    return None


def ignorable_vae_key(key: str) -> str | None:
    """Reason to ignore a first stage's key (without prefix); None if it must be used."""
    if key.startswith("loss."):
        return "training only: perceptual loss and discriminator"
    if key in ("quantize.used", "quantize.unknown_index"):
        return "remapping of codebook indices, no effect on pictures"
    if key.startswith(("model_ema.", "ema.")):
        return "EMA copy of the weights"
    if key == "colorize":
        return "projection for displaying label maps"
    return None
