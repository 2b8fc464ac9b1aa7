"""The prior of unCLIP against diffusers' PriorTransformer: the network, its text, its keys in both layouts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_checkpoints.diffusers.folder import DiffusersComponent, open_diffusers
from ldmkit_checkpoints.diffusers.unclip.prior import prior_diffusers_keys, prior_from_diffusers, statistics_keys
from ldmkit_checkpoints.karlo.prior import karlo_prior_config, karlo_prior_keys, read_statistics
from ldmkit_checkpoints.transformers.text_config import clip_from_hf
from ldmkit_checkpoints.transformers.text_keys import clip_hf_keys, clip_hf_level
from ldmkit_codecs.embedding import EmbeddingCodec
from ldmkit_conditioners.clip_text import ClipPooled, ClipText
from ldmkit_denoisers.prior import Prior, PriorConfig
from torch import Tensor

import ldmkit
from ldmkit import LazyTensor, Tokens, Vector
from ldmkit.models.weights import assign

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
from tiny_diffusers import text_model, tokenizer

TINY: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 12, "embedding_dim": 32, "num_layers": 2}
FLOAT64 = 1e-10
"""Both sides in float64, but for the sinusoid of the time, which is float32 in both; 1e-15 is seen."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def theirs(**changes: Any) -> Any:
    """A PriorTransformer without a silent part: positions, query and statistics begin as zeros."""
    torch.manual_seed(0)
    net = diffusers.PriorTransformer(**{**TINY, **changes}).double().eval()
    for i, parameter in enumerate((net.positional_embedding, net.prd_embedding, net.clip_mean, net.clip_std)):
        parameter.data = normal(*parameter.shape, seed=i) * 0.5
    net.clip_std.data = net.clip_std.data.abs() + 0.1
    return net


def saved(net: Any, folder: Path) -> Prior:
    """Their folder, read as every folder is."""
    net.save_pretrained(folder)
    source = open_diffusers(folder, None)
    assert isinstance(source, DiffusersComponent) and source.part_spec.type == "prior"
    ours = Prior(PriorConfig.of(source.part_spec.config)).double().eval()
    assign(ours, source.tensors("denoiser"), "denoiser", dtype=torch.float64)
    return ours


def outputs(net: Any, ours: Prior, length: int = 77, width: int = 32, vector: int = 32) -> tuple[Tensor, Tensor]:
    """Both for rows with texts of different length."""
    x, tokens, pooled = normal(3, width, seed=5), normal(3, length, width, seed=6), normal(3, vector, seed=7)
    mask = torch.arange(length) < torch.tensor([length, 3, 1])[:, None]
    times = torch.tensor([999, 500, 0])
    with torch.no_grad():
        want = net(x, times, pooled, encoder_hidden_states=tokens, attention_mask=mask).predicted_image_embedding
        context = ours.prepare({"context": Tokens(tokens, mask), "vector": Vector(pooled)})
        return ours(x, times.float(), context), want


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_embeddings": 9, "num_layers": 1, "dropout": 0.5},
        {"num_attention_heads": 3, "attention_head_dim": 8},
        {"time_embed_dim": 24, "clip_embed_dim": 32, "time_embed_act_fn": "silu"},
        {"embedding_proj_dim": 20},
    ],
)
def test_the_network_is_the_same_function(changes: dict[str, Any], tmp_path: Path) -> None:
    net = theirs(**changes)
    length, vector = changes.get("num_embeddings", 77), changes.get("embedding_proj_dim", 32)
    got, want = outputs(net, saved(net, tmp_path), length, vector=vector)
    assert want.abs().max() > 0.1 and (got - want).abs().max() < FLOAT64
    assert (want[0] - want[1]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("norm_in_type", "layer"),
        ("embedding_proj_norm_type", "layer"),
        ("encoder_hid_proj_type", None),
        ("added_emb_type", None),
        ("time_embed_dim", 48),
        ("clip_embed_dim", 16),
        ("additional_embeddings", 3),
        ("time_embed_act_fn", "gelu"),
        ("num_layers", 0),
        ("num_attention_heads", 2.5),
        ("embedding_proj_dim", "many"),
        ("num_layer", 2),
    ],
)
def test_a_field_that_is_not_read_is_refused_by_name(field: str, value: Any, tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ldmkit.SourceError) as caught:
        open_diffusers(tmp_path, None)
    assert field in str(caught.value)


def test_shap_e_s_fields_are_all_of_diffusers() -> None:
    """Every field of the class is used, without effect on a trained network, or refused."""
    config = {key: value for key, value in diffusers.PriorTransformer(**TINY).config.items() if key[0] != "_"}
    assert prior_from_diffusers(config) == {
        "channels": 32, "width": 24, "layers": 2, "heads": 2, "context_dim": 32, "vector_dim": 32,
    }  # fmt: skip


def karlo_file(net: Any) -> dict[str, Tensor]:
    """The same weights under Karlo's keys: q, k and v of one head follow one another."""
    names = {
        "model.time_embed.0": "time_embedding.linear_1",
        "model.time_embed.2": "time_embedding.linear_2",
        "model.clip_img_proj": "proj_in",
        "model.text_emb_proj": "embedding_proj",
        "model.text_enc_proj": "encoder_hidden_states_proj",
        "model.final_ln": "norm_out",
        "model.out_proj": "proj_to_clip_embeddings",
    }
    state, heads = net.state_dict(), net.config.num_attention_heads
    for i in range(net.config.num_layers):
        old, new = f"model.transformer.resblocks.{i}", f"transformer_blocks.{i}"
        names |= {f"{old}.ln_1": f"{new}.norm1", f"{old}.ln_2": f"{new}.norm3"}
        names |= {f"{old}.attn.c_proj": f"{new}.attn1.to_out.0", f"{old}.mlp.c_fc": f"{new}.ff.net.0.proj"}
        names |= {f"{old}.mlp.c_proj": f"{new}.ff.net.2"}
    found = {f"{old}.{part}": state[f"{new}.{part}"] for old, new in names.items() for part in ("weight", "bias")}
    for i in range(net.config.num_layers):
        for part in ("weight", "bias"):
            three = [state[f"transformer_blocks.{i}.attn1.to_{name}.{part}"].chunk(heads) for name in "qkv"]
            rows = [torch.cat(one) for one in zip(*three, strict=True)]
            found[f"model.transformer.resblocks.{i}.attn.c_qkv.{part}"] = torch.cat(rows)
    return found | {
        "model.prd_emb": state["prd_embedding"],
        "model.positional_embedding": state["positional_embedding"],
    }


def test_the_original_file_holds_the_same_network() -> None:
    net = theirs()
    tensors = {key: LazyTensor.of(value) for key, value in karlo_file(net).items()}
    config = karlo_prior_config(tensors, head_dim=12)
    ours, keymap = Prior(config).double().eval(), karlo_prior_keys(config)
    state = {name: one.read(*(tensors[key].read(True) for key in one.keys)) for name, one in keymap.items()}
    ours.load_state_dict(state)
    assert {key for one in keymap.values() for key in one.keys} == set(tensors)
    got, want = outputs(net, ours)
    assert (got - want).abs().max() < FLOAT64
    for name, one in keymap.items():
        back = dict(zip(one.keys, one.write(state[name]), strict=True))
        assert all(torch.equal(value, tensors[key].read(True)) for key, value in back.items())


def test_the_statistics_beside_it(tmp_path: Path) -> None:
    mean, std = normal(32, seed=1).float(), normal(32, seed=2).float().abs() + 0.1
    torch.save((mean, std), tmp_path / "stats.th")
    found = read_statistics(tmp_path / "stats.th")
    assert torch.equal(found["mean"], mean) and torch.equal(found["std"], std)
    torch.save((mean, torch.zeros(32)), tmp_path / "zeros.th")
    torch.save({"mean": mean}, tmp_path / "other.th")
    for name in ("zeros.th", "other.th"):
        with pytest.raises(ldmkit.WeightsError) as caught:
            read_statistics(tmp_path / name)
        assert caught.value.code == "weights.no-statistics" and name in str(caught.value)


def test_the_codec_is_their_last_step_and_its_inverse() -> None:
    net = theirs()
    codec, state = EmbeddingCodec({"dim": 32}).double(), net.state_dict()  # type: ignore[arg-type]
    codec.load_state_dict({name: one.read(state[one.keys[0]]) for name, one in statistics_keys().items()})
    latents = normal(4, 32, seed=9)
    with torch.no_grad():
        want = net.post_process_latents(latents)
    assert torch.equal(codec.decode(latents), want)
    assert (codec.encode(want) - latents).abs().max() < FLOAT64


def test_statistics_of_zero_are_an_error_and_never_the_mean() -> None:
    codec = EmbeddingCodec({"dim": 3})  # type: ignore[arg-type]
    codec.std.zero_()
    for call in (codec.decode, codec.encode, codec.raw, codec.preview):
        with pytest.raises(ldmkit.WeightsError) as caught:
            call(torch.ones(1, 3))
        assert caught.value.code == "weights.no-statistics" and "all zero" in str(caught.value)
    codec.std.copy_(torch.tensor([1.0, 0.0, 2.0]))
    with pytest.raises(ldmkit.WeightsError, match="some deviation"):
        codec.decode(torch.ones(1, 3))


def test_measured_statistics_standardise() -> None:
    embeddings = normal(500, 3, seed=3) * torch.tensor([0.1, 2.0, 30.0]) + torch.tensor([5.0, 0.0, -7.0])
    latents = EmbeddingCodec.measured(embeddings).double().encode(embeddings)
    assert latents.mean(0).abs().max() < 1e-5 and (latents.std(0, correction=0) - 1).abs().max() < 1e-6
    with pytest.raises(ldmkit.InputError, match="feature"):
        EmbeddingCodec.measured(torch.ones(4, 3))


def test_clip_gives_the_prior_what_its_pipeline_gives_it() -> None:
    """Last state after the final norm, projected state, and the tokenizer's attention mask."""
    torch.manual_seed(0)
    tower, words = text_model(24).double().eval(), tokenizer()
    config = clip_from_hf(tower.config.to_dict(), projected=True) | {"pad": words.pad_token_id}
    ours = [ClipText({**config, "masked": True}).double().eval(), ClipPooled(config).double().eval()]
    state = tower.state_dict()
    for part in ours:
        keymap = clip_hf_keys(part.config, clip_hf_level(state))
        part.load_state_dict({n: one.read(*(state[key] for key in one.keys)) for n, one in keymap.items()})
    texts = ["a horse", "", "the cat on the mat"]
    given = words(texts, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        want = tower(given.input_ids)
        rows = [ids[real].tolist() for ids, real in zip(given.input_ids, given.attention_mask.bool(), strict=True)]
        tokens, pooled = ours[0](rows), ours[1](rows)
    assert (tokens.value - want.last_hidden_state).abs().max() < FLOAT64
    assert torch.equal(tokens.mask, given.attention_mask.bool())
    assert (pooled.value - want.text_embeds).abs().max() < FLOAT64
    null = ours[0].null(tokens)
    assert torch.equal(null.mask, tokens.mask[1:2].expand(3, -1))
    assert (null.value - tokens.value[1]).abs().max() < FLOAT64


@pytest.mark.parametrize(("width", "millions"), [(768, 1022.0), (1280, 1026.2)])
def test_parameters_at_full_size(width: int, millions: float) -> None:
    """Karlo's and Kandinsky's, in diffusers' count with the two rows of statistics."""
    with torch.device("meta"):
        prior = Prior(PriorConfig(channels=width, context_dim=width, vector_dim=width))
    count = sum(parameter.numel() for parameter in prior.parameters()) + 2 * width
    assert round(count / 1e6, 1) == millions
    assert {key for one in prior_diffusers_keys(prior.config).values() for key in one.keys}
