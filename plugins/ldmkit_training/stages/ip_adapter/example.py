"""A tiny image encoder, for the contract kit's examples."""

from __future__ import annotations

from pathlib import Path

from ldmkit_checkpoints.diffusers.export import published
from ldmkit_checkpoints.transformers.vision import CONFIG, vision_keys
from ldmkit_conditioners.clip_image import ClipImage

from ldmkit.files.json import write_json
from ldmkit.models.weights import write_safetensors

_SHAPE = {"width": 16, "layers": 2, "heads": 2, "mlp": 32, "projection": 12, "edge": 8, "patch": 4}
_FIELDS = {
    "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "mlp": "intermediate_size",
    "projection": "projection_dim", "edge": "image_size", "patch": "patch_size",
}  # fmt: skip


def write_encoder(folder: Path) -> None:
    """An image encoder as transformers saves it, with new weights, in a folder that is made."""
    part = ClipImage({**_SHAPE, "pictures": {"shortest": 8, "crop": (8, 8)}})
    own = {field: _SHAPE[name] for name, field in _FIELDS.items()}
    folder.mkdir(parents=True)
    config = {"architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model", **own}
    write_json(folder / CONFIG, {**config, "hidden_act": "gelu"})
    write_safetensors(folder / "model.safetensors", published(part.state_dict(), vision_keys(part.config)))
