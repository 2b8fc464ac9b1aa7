"""Where tensors are with another device that computes: the meta device here, CUDA where there is one."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from test_fusing import CALL, TEXT, low_rank, pipeline

import ldmkit
from ldmkit.models.placing import blocks_of
from ldmkit.models.residence import Streamed, home_of, in_use


def devices(part: Any) -> set[str]:
    return {tensor.device.type for tensor in chain(part.parameters(), part.buffers())}


def elsewhere(placement: Any, device: str, pipe: ldmkit.Pipeline | None = None) -> ldmkit.Pipeline:
    asked = ldmkit.Placement.read(placement).model_copy(update={"device": device})
    return (pipeline() if pipe is None else pipe).placed(asked)


def test_parts_are_on_the_device_while_they_are_used() -> None:
    pipe = pipeline()
    placed = elsewhere("low-memory", "meta", pipe)
    text = placed.conditioners["text"]
    assert placed.device.type == "meta" and devices(placed.denoiser) == {"meta"} and devices(pipe.denoiser) == {"cpu"}
    assert text.device.type == "meta" and devices(text) == {"cpu"}
    for _ in range(2):
        with in_use([text]):
            assert devices(text) == {"meta"}
            with in_use([text]):
                pass
            assert devices(text) == {"meta"}
        assert devices(text) == {"cpu"}
    for mine, theirs in zip(text.parameters(), pipe.conditioners["text"].parameters(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()  # nothing is copied to rest


def test_a_streamed_network_is_there_block_by_block() -> None:
    placed = elsewhere("denoiser:streamed", "meta")
    network, blocks = placed.denoiser, list(blocks_of(placed.denoiser))
    seen: list[list[int]] = []
    for block in blocks:  # after the placement's own
        block.register_forward_pre_hook(
            lambda *_: seen.append([i for i, b in enumerate(blocks) if "meta" in devices(b)])
        )
    meta = {"device": "meta"}
    signals = {name: ldmkit.Tokens(torch.empty(2, 4, slot.dim, **meta), None) for name, slot in network.slots.items()}
    with torch.no_grad(), in_use([network]):
        edges = [n for n in network.parameters() if n.is_meta]
        for _ in range(2):
            out = network(torch.empty(2, 3, 8, 8, **meta), torch.empty(2, **meta), network.prepare(signals))
    assert out.is_meta and len(seen) == 2 * len(blocks) > 4 and edges
    assert all(len(there) == 1 for there in seen), (
        "a block's own alone: what is fetched ahead is not in the network yet"
    )
    home = home_of(network)
    assert isinstance(home, Streamed) and not home._ahead
    assert devices(network) == {"cpu"} and network.device.type == "meta"


def test_moving_a_placed_pipeline_moves_what_computes() -> None:
    placed = pipeline().placed("lowest-memory")
    for part in placed.parts.items().values():
        if (home := home_of(part)) is not None:
            home.to(torch.device("meta"))
            with in_use([part]):
                assert "meta" in devices(part) or not devices(part)
        assert part.device.type == "meta" or not list(part.parameters())
    assert placed.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("placement", [
    "low-memory", "lowest-memory", "text:streamed codec:streamed denoiser:at-use", "denoiser:int8",
])  # fmt: skip
@pytest.mark.parametrize("rest", ["cpu", "disk"])
def test_on_cuda_the_pixels_are_those_without_a_placement(placement: str, rest: str) -> None:
    pipe = pipeline()
    pipe = pipe.with_adapter("lora", low_rank(pipe), {})
    whole = pipeline().with_adapter("lora", low_rank(pipeline()), {}).to("cuda")
    asked = ldmkit.Placement.read(placement).model_copy(update={"device": "cuda", "rest": rest})
    placed = pipe.placed(asked)
    wanted = whole.placed("denoiser:int8") if "int8" in placement else whole
    for _ in range(3):
        assert torch.equal(placed(TEXT, **CALL).images, wanted(TEXT, **CALL).images)
    for path, part in placed.parts.items().items():
        if home_of(part) is not None and "int8" not in placement:
            assert "cpu" in devices(part), path
    if placement == "lowest-memory":
        before = torch.cuda.memory_allocated()
        placed.to("cpu").to("cuda")
        assert torch.equal(placed(TEXT, **CALL).images, wanted(TEXT, **CALL).images)
        assert torch.cuda.memory_allocated() <= before + 2**20
