"""Every field of a text encoder's config.json: what is read of it equals transformers, or the field is refused by name.

The fields come from the installed classes, and from configs that transformers 4 wrote. Tolerance: 1e-5 of the largest
value, in float32: sums are taken in another order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldmkit_checkpoints.diffusers.ldm_bert import bert_diffusers_keys, ldm_bert_from_diffusers
from ldmkit_checkpoints.transformers.text_config import clip_from_hf, t5_from_hf
from ldmkit_checkpoints.transformers.text_fields import NO_EFFECT
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys, clip_hf_level, t5_keys
from ldmkit_conditioners.clip_text import ClipPooled, ClipText
from ldmkit_conditioners.ldm_text import LdmText
from ldmkit_conditioners.t5_text import T5Text
from torch import Tensor, nn

import ldmkit

transformers = pytest.importorskip("transformers")
ldm = pytest.importorskip("diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion")

CLIP = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "projection_dim": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 12, "bos_token_id": 50, "eos_token_id": 51, "pad_token_id": 1,
}  # fmt: skip
T5 = {
    "vocab_size": 60, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 2,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
}  # fmt: skip
BERT = {
    "vocab_size": 60, "d_model": 16, "encoder_ffn_dim": 64, "encoder_layers": 2, "encoder_attention_heads": 2,
    "head_dim": 8, "max_position_embeddings": 12,
}  # fmt: skip
IDS = [[50, 3, 4, 51], [50, 55, 51, 51], [50, *range(2, 10), 51]]
CHANGED = {
    "hidden_act": "gelu", "feed_forward_proj": "gated-gelu", "activation_function": "relu", "eos_token_id": 2,
    "bos_token_id": 40,
    "problem_type": "regression", "dtype": "float32", "torch_dtype": "float32", "dense_act_fn": "gelu",
    "tokenizer_class": "CLIPTokenizer", "transformers_version": "4.21.0", "id2label": {"0": "a"}, "label2id": {"a": 0},
    "architectures": ["CLIPTextModelWithProjection"], "model_type": "other", "prefix": "a", "_name_or_path": "x",
    "_commit_hash": "0", "attn_implementation": "eager", "layer_norm_eps": 1e-3, "layer_norm_epsilon": 1e-3,
}  # fmt: skip
OLD = [
    "torch_dtype",
    "use_attention_mask",
    "scale_embedding",
    "_commit_hash",
    "min_length",
    "top_k",
    "prefix",
    "made_up",
]


def fields(config: Any) -> list[str]:
    return sorted({*config.to_dict(), *OLD} - {"return_dict", "output_hidden_states", "output_attentions"})


def changed(name: str, value: Any) -> Any:
    """Another value of the field that a model can be built with."""
    if name in CHANGED:
        return CHANGED[name]
    if isinstance(value, bool) or value is None:
        return not value
    return value * 2 if isinstance(value, int) and value else 0.25 if isinstance(value, float) else value or 3


def filled(theirs: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.ndim == 1))
    return theirs.eval()


def given(part: nn.Module, keymap: Any, state: dict[str, Tensor]) -> Any:
    part.load_state_dict({n: e.read(*(state[k] for k in e.keys)) for n, e in keymap.items()}, strict=True)
    return part.eval()


def same(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-5


def compare_clip(data: dict[str, Any]) -> None:
    config = clip_from_hf(data, projected=True)
    theirs: Any = filled(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig.from_dict(dict(data))))
    state = dict(theirs.state_dict())
    text, pooled = ClipText(config), ClipPooled(config)
    level = clip_hf_level(state)
    given(text, clip_hf_keys(text.config, level), state)
    given(pooled, clip_hf_keys(pooled.config, level), state)
    ends = [[config["eos"] if i == 51 else i for i in row] for row in IDS]
    with torch.no_grad():
        out = theirs(input_ids=text.ids(ends))
        same(text(ends).value, out.last_hidden_state)
        same(pooled(ends).value, out.text_embeds)


def compare_t5(data: dict[str, Any]) -> None:
    config = t5_from_hf(data, max_length=12)
    theirs: Any = filled(transformers.T5EncoderModel(transformers.T5Config.from_dict(dict(data))))
    part = T5Text(config | {"masked": False})
    given(part, t5_keys(part.config), dict(theirs.state_dict()))
    with torch.no_grad():
        same(part(IDS).value, theirs(input_ids=part.ids(IDS)).last_hidden_state)


def compare_bert(data: dict[str, Any]) -> None:
    config = ldm_bert_from_diffusers(data)
    theirs = filled(ldm.LDMBertModel(ldm.LDMBertConfig(**{k: v for k, v in data.items() if k != "model_type"})))
    part = LdmText(config)
    given(part, bert_diffusers_keys(part.config), dict(theirs.state_dict()))
    with torch.no_grad():
        same(part(IDS).value, theirs(part.ids(IDS))[0])


CLASSES = {
    "clip": (CLIP, transformers.CLIPTextConfig, compare_clip),
    "t5": (T5, transformers.T5Config, compare_t5),
    "ldmbert": (BERT, ldm.LDMBertConfig, compare_bert),
}
FIELDS = [(kind, name) for kind, (base, cls, _) in CLASSES.items() for name in fields(cls(**base))]


def read_or_refused(kind: str, name: str, data: dict[str, Any]) -> None:
    _, _, compare = CLASSES[kind]
    try:
        compare(data)
    except ldmkit.LdmkitError as error:
        assert name in str(error), f"refused, but not by the name of {name}: {error}"


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_field_changed(kind: str, name: str) -> None:
    base, cls, _ = CLASSES[kind]
    data = cls(**base).to_dict() | base
    value = changed(name, data.get(name))
    if name in ("encoder_layers", "num_hidden_layers", "num_layers"):  # two names of one number
        data = {**base, name: value}
        data |= {"num_hidden_layers": value} if kind == "ldmbert" and name == "encoder_layers" else {}
    data[name] = value
    read_or_refused(kind, name, data)


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in FIELDS if n not in ("vocab_size", *NO_EFFECT)])
def test_field_absent_takes_the_default_of_the_class(kind: str, name: str) -> None:
    base, _, _ = CLASSES[kind]
    data = {key: value for key, value in base.items() if key != name}
    if kind == "clip":  # the class's own ids need its own vocabulary
        data |= {"vocab_size": 49408} if name in ("bos_token_id", "eos_token_id") else {}
    if kind == "ldmbert" and name == "d_model":
        data["encoder_ffn_dim"], data["encoder_layers"] = 5120, 1
    read_or_refused(kind, name, data)


@pytest.mark.parametrize("kind", CLASSES)
def test_unknown_and_unreadable_values_are_refused_by_name(kind: str) -> None:
    base, _, compare = CLASSES[kind]
    for name in ("hiden_size", "num_atention_heads", "quantization_config"):
        with pytest.raises(ldmkit.LdmkitError, match=name):
            compare({**base, name: 4})
    for name in base:
        if name not in ("pad_token_id",) or kind != "clip":
            for value in (None, "2", 1.5, True, -3):
                with pytest.raises(ldmkit.LdmkitError, match=name):
                    compare({**base, name: value})


def test_a_whole_clip_models_config() -> None:
    """`model_type: clip` holds the text model's fields in `text_config`, as transformers reads them."""
    whole = {"model_type": "clip", "projection_dim": 99, "text_config": {**CLIP, "model_type": "clip_text_model"}}
    assert clip_from_hf(whole, projected=True) == clip_from_hf(CLIP, projected=True)
    with pytest.raises(ldmkit.LdmkitError, match="text_config_dict"):
        clip_from_hf({**whole, "text_config_dict": {"hidden_size": 20}})


def test_the_eos_token_2_of_old_configs_pools_at_the_largest_id() -> None:
    compare_clip({**CLIP, "eos_token_id": 2})
    assert clip_from_hf({"eos_token_id": 2, "vocab_size": 49410})["eos"] == 49407  # rows of added tokens are no ends
