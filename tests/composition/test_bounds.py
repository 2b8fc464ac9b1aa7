"""Numbers in a spec that nobody means: an error at once, where building what they ask for would take for ever."""

from __future__ import annotations

from typing import Any

import pytest
from counting import calls_at_most

import ldmkit
from ldmkit.models.compose import compose
from ldmkit.models.spec import PipelineSpec

UNET: dict[str, Any] = {"channels": 3, "widths": [8, 16], "blocks": 1, "norm_groups": 4, "heads": 2}
CROSS: dict[str, Any] = {**UNET, "attention": ["none", "cross"], "context_dim": 8}
HUGE = 20_000_000

DENOISERS: dict[str, tuple[dict[str, Any], str]] = {
    "blocks": ({**UNET, "blocks": 20_000}, "blocks"),
    "blocks of a level": ({**UNET, "blocks": [1, 20_000]}, "blocks"),
    "depth": ({**CROSS, "depth": 20_000}, "depth"),
    "depth times blocks": ({**CROSS, "depth": 400, "blocks": 64}, "depth"),
    "mid_depth": ({**CROSS, "mid_depth": 20_000}, "mid_depth"),
    "levels": ({**UNET, "widths": [8] * 20_000}, "widths"),
    "widths": ({**UNET, "widths": [8, HUGE]}, "widths"),
    "heads": ({**UNET, "heads": HUGE}, "heads"),
    "channels": ({**UNET, "channels": HUGE}, "channels"),
    "context_dim": ({**CROSS, "context_dim": HUGE}, "context_dim"),
    "time_dim": ({**UNET, "time_dim": HUGE}, "time_dim"),
    "vector_dim": ({**UNET, "vector": "table", "vector_dim": HUGE}, "vector_dim"),
}
CONDITIONERS = {
    "clip-text": ("vocab_size", "width", "layers", "heads", "mlp", "positions"),
    "clip-pooled": ("projection",),
    "t5-text": ("vocab_size", "dim", "layers", "heads", "mlp", "max_length"),
    "ldm-text": ("vocab_size", "dim", "layers", "heads", "head_dim", "max_length"),
    "layout-tokens": ("n_classes", "n_tokens", "dim", "layers", "heads", "max_objects"),
    "layout-boxes": ("n_classes", "dim", "hidden", "max_objects"),
    "label": ("n_classes", "dim"),
    "semantic": ("n_classes", "dim", "stages", "multiplier"),
    "size-codes": ("width",),
    "masked-image": ("latent_channels",),
    "given": ("dim",),
}
CODECS: dict[str, tuple[dict[str, Any], str]] = {
    "blocks": ({"type": "kl", "config": {"blocks": 20_000}}, "blocks"),
    "levels": ({"type": "vq", "config": {"widths": [32] * 20_000}}, "widths"),
    "codebook": ({"type": "vq", "config": {"codebook_size": HUGE}}, "codebook_size"),
    "attention": ({"type": "kl", "config": {"attention_levels": [0] * 20_000}}, "attention_levels"),
    "tiny": ({"type": "tiny", "config": {"encoder_blocks": [20_000] * 4}}, "encoder_blocks"),
    "identity": ({"type": "identity", "config": {"channels": HUGE}}, "channels"),
}

LIMIT = 1_000_000
"""Of calls: a refusal takes 90,000 at most, imports of parts included; one block of a U-Net a thousand and more."""


def refused(where: str, field: str, **parts: Any) -> None:
    whole = {"codec": {"type": "identity"}, "denoiser": {"type": "unet", "config": UNET}, **parts}
    spec = PipelineSpec.read({"process": {"type": "discrete"}, **whole})
    with pytest.raises(ldmkit.SpecError) as caught, calls_at_most(LIMIT):
        compose(spec)
    assert caught.value.where is not None and caught.value.where.startswith(f"{where}.config.{field}")


@pytest.mark.parametrize("case", DENOISERS)
def test_denoisers(case: str) -> None:
    config, field = DENOISERS[case]
    refused("denoiser", field, denoiser={"type": "unet", "config": config})


@pytest.mark.parametrize("case", CODECS)
def test_codecs(case: str) -> None:
    part, field = CODECS[case]
    refused("codec", field, codec=part)


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in CONDITIONERS.items() for field in fields]
)
def test_conditioners(kind: str, field: str) -> None:
    refused("conditioners.c", field, conditioners={"c": {"type": kind, "config": {field: HUGE}}})


def test_adapters() -> None:
    config = {"unet": UNET, "hint_widths": [8] * 20_000}
    refused("adapters.a", "hint_widths", adapters={"a": {"type": "controlnet", "config": config}})
    config = {"unet": {**UNET, "blocks": 20_000}}
    refused("adapters.a", "blocks", adapters={"a": {"type": "controlnet", "config": config}})


def test_the_largest_published_parts_are_far_inside() -> None:
    """T5 11B at four times its width and ten times the rest; SDXL at twice its depth and width."""
    t5 = {"vocab_size": 2563840, "dim": 10240, "head_dim": 1280, "mlp": 4 * 65536, "layers": 240, "heads": 1280}
    ldmkit.get("conditioner", "t5-text").Config.of(t5)
    unet = {"channels": 4, "widths": [640, 1280, 2560], "attention": ["none", "cross", "cross"], "depth": [1, 4, 20]}
    ldmkit.get("denoiser", "unet").Config.of({**unet, "head_dim": 64, "context_dim": 4096, "linear_projections": True})
