"""A linear adapter attached, fused, unfused and detached: on the denoiser and on text towers.

Tolerance of fused against attached: 1e-4 of the largest value in float32, as sums run in another order in every step.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from low_rank import PREFIX, LowRank

import ldmkit
from ldmkit import CompositionError, SourceError
from ldmkit.contracts.nn import layer_of

CALL: dict[str, Any] = {"steps": 3, "seeds": [1, 2], "guidance": 3.0}
TEXT = {"text": [47, 3, 9, 48]}


def pipeline(pooled: bool = False) -> ldmkit.Pipeline:
    """Text, tokens and with `pooled` a vector of the same tower as well, to pictures of 8x8."""
    parts: dict[str, Any] = {"text": tiny_parts.part("conditioner", "clip-text", tiny_parts.CLIP, seed=3)}
    wiring: dict[str, Any] = {}
    vector: dict[str, Any] = {}
    if pooled:
        parts["pooled"] = tiny_parts.part("conditioner", "clip-pooled", tiny_parts.CLIP, seed=4)
        parts["pooled"].adopt(parts["text"])
        wiring["pooled"] = {"slot": "vector", "shares": "text", "input": "text"}
        vector = {"vector": "mlp", "vector_dim": 16}
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, 16, **vector),
        process=ldmkit.get("process", "discrete")(),
        conditioners=parts,
        wiring=wiring,
        defaults={"size": (8, 8)},
    )


def low_rank(pipe: ldmkit.Pipeline, *, denoiser: bool = True, text: bool = True, seed: int = 7) -> LowRank:
    """An update, not zero, of every linear layer with a port."""
    layers: dict[str, Any] = {}
    owners = {"": pipe.denoiser} if denoiser else {}
    owners |= {f"{PREFIX}text.": pipe.conditioners["text"]} if text else {}
    for prefix, part in owners.items():
        for port in part.ports:
            if port.startswith("linear."):
                layer = layer_of(part, part.ports, port)
                assert layer is not None
                layers[prefix + port] = (layer.in_features, layer.out_features)
    torch.manual_seed(seed)
    adapter = LowRank({"layers": layers, "scale": 0.7}).eval()
    for up in adapter.up:
        torch.nn.init.normal_(up, std=0.1)
    return adapter.requires_grad_(False)


def weights(pipe: ldmkit.Pipeline) -> dict[str, torch.Tensor]:
    return {
        f"{path}.{key}": value.clone()
        for path, part in pipe.parts.items().items()
        for key, value in part.state_dict().items()
    }


def far(one: Any, other: Any) -> float:
    return float((one.latents - other.latents).abs().max() / other.latents.abs().max())


@pytest.mark.parametrize("where", [{"text": False}, {"denoiser": False}, {}], ids=["denoiser", "text", "both"])
@pytest.mark.parametrize("plan", ["eager", "prepacked"])
def test_attached_fused_unfused_detached(where: dict[str, bool], plan: str) -> None:
    bare = pipeline().planned(plan)
    before, plain = weights(bare), bare(TEXT, **CALL)
    attached = bare.with_adapter("lora", low_rank(bare, **where), {})
    with_taps = attached(TEXT, **CALL)
    assert far(with_taps, plain) > 1e-2
    fused = attached.fused()
    assert not fused.adapters and fused.plan == plan and fused.merged == ("lora",)
    assert far(fused(TEXT, **CALL), with_taps) < 1e-4
    assert not [name for name, port in fused.denoiser.ports.items() if port.taps]
    again = fused.unfused()
    assert torch.equal(again(TEXT, **CALL).latents, with_taps.latents)
    del attached, fused, again, with_taps  # an output holds its pipeline
    gc.collect()
    assert not [name for name, port in bare.denoiser.ports.items() if port.taps]
    assert torch.equal(bare(TEXT, **CALL).latents, plain.latents)
    after = weights(bare)
    assert after.keys() == before.keys() and all(torch.equal(after[key], value) for key, value in before.items())


def test_the_oracle_is_a_dense_sum() -> None:
    """A fused pipeline's weights are W + scale * up @ down, by plain arithmetic, where a tap is; others are shared."""
    bare = pipeline()
    adapter = low_rank(bare)
    fused = bare.with_adapter("lora", adapter, {}).fused()
    tapped: set[str] = set()
    for port in adapter.ports:
        down, up = adapter.matrices(port)
        own, _, path = port.rpartition("linear.")
        mine = bare.conditioners["text"] if own else bare.denoiser
        theirs = fused.conditioners["text"] if own else fused.denoiser
        wanted = mine.get_submodule(path).weight + 0.7 * (up @ down)
        assert torch.equal(theirs.get_submodule(path).weight, wanted)
        tapped.add(f"{own}{path}.weight")
    shared = 0
    for prefix, mine, theirs in (
        ("", bare.denoiser, fused.denoiser),
        (f"{PREFIX}text.", bare.conditioners["text"], fused.conditioners["text"]),
    ):
        for (key, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
            assert (a.data_ptr() == b.data_ptr()) == (f"{prefix}{key}" not in tapped), key
            shared += a.data_ptr() == b.data_ptr()
    assert shared and fused.codec is bare.codec


def test_a_shared_tower_is_fused_for_all_that_read_it() -> None:
    bare = pipeline(pooled=True)
    attached = bare.with_adapter("lora", low_rank(bare, denoiser=False), {})
    with_taps, plain = attached(TEXT, **CALL), bare(TEXT, **CALL)
    vectors = [p.conditioning(TEXT, size=(8, 8)).batch((frozenset(),))[0]["vector"].value for p in (bare, attached)]
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3  # the pooled vector reads the tapped tower too
    assert far(attached.fused()(TEXT, **CALL), with_taps) < 1e-4 < far(with_taps, plain)


def test_two_adapters_add_up_and_one_may_stay() -> None:
    bare = pipeline()
    both = bare.with_adapter("a", low_rank(bare, seed=1), {}).with_adapter("b", low_rank(bare, seed=2), {})
    wanted = both(TEXT, **CALL)
    half = both.fused("a")
    assert list(half.adapters) == ["b"] and far(half(TEXT, **CALL), wanted) < 1e-4
    whole = half.fused()
    assert whole.merged == ("a", "b") and far(whole(TEXT, **CALL), wanted) < 1e-4
    assert (
        far(both.tuned("a", scale=0.0)(TEXT, **CALL), bare.with_adapter("b", low_rank(bare, seed=2), {})(TEXT, **CALL))
        < 1e-6
    )


def test_a_fused_pipeline_is_saved_loaded_and_moved_by_itself(tmp_path: Path) -> None:
    bare = pipeline()
    fused = bare.with_adapter("lora", low_rank(bare), {}).fused()
    drawn, plain = fused(TEXT, **CALL), bare(TEXT, **CALL)
    assert torch.equal(ldmkit.load(fused.save(tmp_path / "fused"))(TEXT, **CALL).latents, drawn.latents)
    fused.to(torch.float64)
    assert bare.denoiser.dtype == torch.float32
    assert torch.equal(bare(TEXT, **CALL).latents, plain.latents)


def test_recipes_say_what_is_in_the_weights() -> None:
    bare = pipeline()
    fused = bare.with_adapter("lora", low_rank(bare), {}).fused()
    drawn = fused(TEXT, **CALL)
    recipe = drawn.recipes[0]
    assert recipe["fused"] == ["lora"] and recipe["model"] is None
    assert "fused" not in bare(TEXT, **CALL).recipes[0]
    from ldmkit.replaying import replay

    assert torch.allclose(replay(fused, recipe).latents, drawn.latents[:1], atol=1e-5)
    with pytest.raises(SourceError, match="other-model"):
        replay(bare, recipe)


def test_one_adapter_more_does_not_hide_what_is_in_the_weights() -> None:
    bare = pipeline()
    fused = bare.with_adapter("lora", low_rank(bare), {}).fused()
    more = fused.with_adapter("more", low_rank(fused, seed=2), {})
    assert more.merged == ("lora",) and more(TEXT, **CALL).recipes[0]["fused"] == ["lora"]


def test_what_cannot_be_fused_is_refused() -> None:
    bare = pipeline()
    with pytest.raises(CompositionError, match="not-fusable"):
        bare.fused()
    with pytest.raises(CompositionError, match="unknown-adapter"):
        bare.with_adapter("lora", low_rank(bare), {}).fused("lore")
    with pytest.raises(CompositionError, match="not-fused"):
        bare.unfused()
    nowhere = LowRank({"layers": {"conditioners.tekst.linear.tower.blocks.0.qkv": (16, 48)}})
    with pytest.raises(CompositionError, match="unknown-conditioner"):
        bare.with_adapter("lora", nowhere, {})
    other = LowRank({"layers": {"conditioners.text.linear.tower.blocks.9.qkv": (16, 48)}})
    with pytest.raises(CompositionError, match="unknown-port"):
        bare.with_adapter("lora", other, {})


def test_a_tower_called_by_itself_is_bare() -> None:
    """Taps act in the pipelines that have the adapter, not in whoever else calls the shared conditioner."""
    bare = pipeline()
    wanted = bare.conditioners["text"]([TEXT["text"]]).value
    attached = bare.with_adapter("lora", low_rank(bare, denoiser=False), {})
    assert torch.equal(bare.conditioners["text"]([TEXT["text"]]).value, wanted)
    signal = attached.conditioning(TEXT, size=(8, 8)).batch((frozenset(),))[0]["context"].value
    assert (signal - wanted).abs().max() > 1e-2
    null = attached.conditioning(TEXT, size=(8, 8)).batch((frozenset({"text"}),))[0]["context"].value
    assert (null - bare.conditioners["text"]([""]).value).abs().max() > 1e-2
