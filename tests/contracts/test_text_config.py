"""Conditioners that published configs ask for: what is planned, counted by keys, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_checkpoints.compvis.text_config import PlannedConditioner, conditioners_from_compvis, conditioners_from_sgm
from ldmkit_checkpoints.diffusers.ldm_bert import ldm_bert_from_diffusers
from ldmkit_checkpoints.transformers.text_config import clip_from_hf, t5_from_hf

import ldmkit
from ldmkit import SourceError
from ldmkit.models.spec import ConditionerSpec

ENCODERS = "ldm.modules.encoders.modules."


def compvis(target: str, params: dict[str, Any] | None = None, **model: Any) -> list[PlannedConditioner]:
    return conditioners_from_compvis({"target": ENCODERS + target, "params": params or {}}, model, 4)


def sgm(*models: tuple[str, str, dict[str, Any]]) -> list[PlannedConditioner]:
    listed = [{"target": f"sgm.modules.encoders.modules.{t}", "input_key": key, "params": p} for t, key, p in models]
    return conditioners_from_sgm({"params": {"emb_models": listed}})


BIG = {"arch": "ViT-bigG-14", "layer": "penultimate", "always_return_pooled": True, "legacy": False, "freeze": True}
SIZES = [(key, {"outdim": 256}) for key in ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")]


def built(planned: PlannedConditioner) -> Any:
    spec = ConditionerSpec.of(planned.spec)
    with torch.device("meta"):
        part = ldmkit.get("conditioner", spec.type)(spec.config)
    if planned.layout:
        assert planned.keymap().keys() == part.state_dict().keys()
    return part


def foreign(planned: PlannedConditioner) -> set[str]:
    return {key for entry in planned.keymap().values() for key in entry.keys}


def test_stable_diffusion_1_and_2() -> None:
    [text] = compvis("FrozenCLIPEmbedder")
    assert (built(text).dim, len(foreign(text))) == (768, 196)  # 197 in files, with position_ids
    params = {"freeze": True, "layer": "penultimate"}
    [text] = compvis("FrozenOpenCLIPEmbedder", params, cond_stage_key="txt")
    part = built(text)
    assert (part.dim, part.config.blocks, part.config.final_norm, part.config.pad) == (1024, 23, True, 0)
    assert len(foreign(text)) == 292  # 294 in files, with logit_scale and text_projection
    assert all(key.startswith("cond_stage_model.model.") for key in foreign(text))


def test_sdxl_base_and_refiner() -> None:
    clip = ("FrozenCLIPEmbedder", "txt", {"layer": "hidden", "layer_idx": 11})
    sizes = [("ConcatTimestepEmbedderND", key, params) for key, params in SIZES]
    base = sgm(clip, ("FrozenOpenCLIPEmbedder2", "txt", BIG), *sizes)
    assert [item.name for item in base] == ["text", "text-2", "pooled", "sizes"]
    parts = [built(item) for item in base]
    assert [(part.kind, part.dim) for part in parts] == [
        ("tokens", 768),
        ("tokens", 1280),
        ("vector", 1280),
        ("vector", 1536),
    ]
    assert [item.spec.get("input") for item in base] == [None, "text", "text", None]
    assert base[2].spec["shares"] == "text-2" and "null" not in base[3].spec
    assert not parts[0].config.final_norm and not parts[1].config.final_norm and parts[0].config.blocks == 11
    parts[2].adopt(parts[1])
    refiner_sizes = [*sizes[:2], ("ConcatTimestepEmbedderND", "aesthetic_score", {"outdim": 256})]
    refiner = sgm(("FrozenOpenCLIPEmbedder2", "txt", BIG), *refiner_sizes)
    assert [item.name for item in refiner] == ["text", "pooled", "sizes"]
    assert sum(built(item).dim for item in refiner[1:]) == 2560
    assert len(foreign(refiner[0])) == 389  # 390 in files, with logit_scale


def test_the_papers_conditioners() -> None:
    [text] = compvis("BERTEmbedder", {"n_embed": 1280, "n_layer": 32}, cond_stage_key="caption")
    assert built(text).dim == 1280 and text.name == "text"
    params = {"n_embed": 512, "n_layer": 16, "vocab_size": 8192, "max_seq_len": 92, "use_tokenizer": False}
    [layout] = compvis("BERTEmbedder", params, cond_stage_key="coordinates_bbox")
    part = built(layout)
    assert (layout.name, part.config.length, part.config.max_objects, part.config.encode_crop) == (
        "layout",
        92,
        30,
        True,
    )
    [ids] = compvis("BERTEmbedder", params, cond_stage_key="codes")
    assert ids.spec["type"] == "ldm-text" and not built(ids).config.words
    [label] = compvis("ClassEmbedder", {"embed_dim": 512, "key": "class_label"})
    assert not built(label).has_null
    [label] = compvis("ClassEmbedder", {"n_classes": 1001, "embed_dim": 512})
    assert built(label).config.null_class == 1000
    [plane] = compvis("SpatialRescaler", {"n_stages": 2, "in_channels": 182, "out_channels": 3})
    assert (built(plane).dim, plane.name) == (3, "semantic")


def test_magic_words_and_identity() -> None:
    assert conditioners_from_compvis("__is_unconditional__", {}, 3) == []
    [masked] = conditioners_from_compvis("__is_first_stage__", {"cond_stage_key": "masked_image"}, 3)
    assert built(masked).dim == 4
    [image] = conditioners_from_compvis({"target": "torch.nn.Identity"}, {"cond_stage_key": "LR_image"}, 3)
    assert built(image).kind == "plane"


REFUSED: list[tuple[Any, str, str]] = [
    (lambda: compvis("FrozenCLIPEmbeder"), "unknown-target", "did you mean 'FrozenCLIPEmbedder'"),
    (
        lambda: compvis("ClassEmbedder", {"embed_dim": 4, "n_clases": 3}),
        "unknown-parameter",
        "did you mean 'n_classes'",
    ),
    (lambda: compvis("FrozenCLIPEmbedder", {"layer": "pooled"}), "unknown-parameter", "pooled"),
    (lambda: compvis("FrozenCLIPEmbedder", {"layer": "hidden"}), "unknown-parameter", "hidden"),
    (lambda: compvis("FrozenOpenCLIPEmbedder", {"arch": "ViT-H-15"}), "unknown-parameter", "ViT-H-14"),
    (lambda: compvis("FrozenOpenCLIPEmbedder", {"layer": "first"}), "unknown-parameter", "penultimate"),
    (lambda: conditioners_from_compvis("nonsense", {}, 3), "unknown-target", "nonsense"),
    (lambda: conditioners_from_compvis("__is_first_stage__", {}, 3), "unknown-condition", "masked_image"),
    (
        lambda: conditioners_from_compvis({"target": "torch.nn.Identity"}, {"conditioning_key": "crossattn"}, 3),
        "unknown-condition",
        "crossattn",
    ),
    (lambda: sgm(("ConcatTimestepEmbedderND", "fps", {"outdim": 256})), "unknown-condition", "fps"),
    (lambda: sgm(("VideoEmbedder", "txt", {})), "unknown-target", "VideoEmbedder"),
    (lambda: conditioners_from_sgm({"params": {}}), "missing-section", "emb_models"),
    (lambda: clip_from_hf({"hidden_act": "relu"}), "unknown-parameter", "quick_gelu"),
    (lambda: clip_from_hf({"layer_norm_eps": 1e-6}), "unknown-parameter", "1e-05"),
    (lambda: t5_from_hf({"feed_forward_proj": "gated-silu"}), "unknown-parameter", "gated-gelu"),
    (lambda: ldm_bert_from_diffusers({"activation_function": "relu"}), "unknown-parameter", "gelu"),
    (lambda: ldm_bert_from_diffusers({"encoder_ffn_dim": 5}), "unknown-parameter", "4 times"),
    (lambda: compvis("ClassEmbedder", {"n_classes": 10}), "missing-parameter", "embed_dim"),
    (lambda: compvis("BERTEmbedder", {"n_embed": 10}), "missing-parameter", "n_layer"),
    (lambda: compvis("ClassEmbedder", {"n_classes": "many", "embed_dim": 3}), "unknown-parameter", "many"),
]


@pytest.mark.parametrize(("make", "code", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_known_is_refused(make: Any, code: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        make()
    assert caught.value.code == f"source.{code}"
    assert words in str(caught.value)
