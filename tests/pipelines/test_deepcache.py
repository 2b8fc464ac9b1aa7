"""DeepCache: the algorithm against a few lines of its own, runs that share nothing, and what is counted."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import tiny_parts
import torch
from ldmkit_adapters.deepcache import DeepCache
from torch import Tensor

import ldmkit
from ldmkit import CompositionError, Run, attached
from ldmkit.run.context import prepared_context

SIGMAS = (12.0, 8.0, 5.0, 3.0, 1.5, 0.7, 0.2, 0.0)
CALL: dict[str, Any] = {"steps": 7, "seeds": [1, 2], "guidance": 2.5}
UNET = {"widths": (8, 8, 16), "blocks": (1, 2, 1), "attention": ("none", "cross", "self")}


def pipeline(**unet: Any) -> ldmkit.Pipeline:
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, **{**UNET, **unet}),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"label": tiny_parts.label()},
        defaults={"size": (8, 8)},
    )


def cached(pipe: ldmkit.Pipeline, **config: Any) -> ldmkit.Pipeline:
    return pipe.with_adapter("cache", DeepCache(config), {})


def reference(
    net: Any, x: Tensor, t: Tensor, context: Any, branch: int, stored: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Section 3.2 of the paper in module calls: F, and the map that is joined with skip `branch`.

    With `stored` in its place, what lies deeper is not called.
    """
    emb, frame, p = net.embed(t, context.projected), ldmkit.Frame(x, t, context), context.projected
    down: list[Any] = []
    for stage in net.down:
        attn = list(stage.attn) or [None] * len(stage.res)
        down += [(res, a) for res, a in zip(stage.res, attn, strict=True)]
        down += [] if stage.resample is None else [(stage.resample, None)]
    skips = [net.conv_in(x)]
    for op in down if stored is None else down[:branch]:
        skips.append(net.block(*op, skips[-1], emb, frame, p))
    h = skips[-1]
    if stored is None:
        h = net.block(net.mid.res[0], net.mid.attn, h, emb, frame, p)
        h = net.block(net.mid.res[1], None, h, emb, frame, p)
    place, feature = len(down), None
    for stage in reversed(net.up):
        for i, res in enumerate(stage.res):
            if place == branch:
                h = feature = h if stored is None else stored
            if place <= branch or stored is None:
                h = net.block(
                    res, stage.attn[i] if stage.attn else None, torch.cat([h, skips[place]], 1), emb, frame, p
                )
            place -= 1
        if stage.resample is not None and (place < branch or stored is None):
            h = stage.resample(h, emb, tuple(skips[place].shape[2:]))
    assert feature is not None
    return net.conv_out(torch.nn.functional.silu(net.norm_out(h))), feature


@pytest.mark.parametrize("branch", range(7))
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_every_nth_call_is_whole(branch: int, interval: int) -> None:
    pipe = pipeline()
    assert [name for name in pipe.denoiser.ports if name.startswith("deep.")] == [f"deep.{i}" for i in range(7)]
    signals = pipe.conditioning([{"label": 1}, {"label": 2}], size=(8, 8)).batch((frozenset(),))[0]
    adapter = DeepCache({"interval": interval, "branch": branch})
    stored: Tensor | None = None
    with torch.no_grad(), attached(pipe.denoiser.ports, adapter.taps("cache")):
        context = prepared_context(pipe.denoiser, {"cache": adapter}, signals, {}, Run(SIGMAS, (8, 8)))
        bare = prepared_context(pipe.denoiser, {}, signals, {}, Run(SIGMAS, (8, 8)))
        for call, sigma in enumerate(SIGMAS[:-1]):
            x, t = (
                torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(call)),
                torch.full((2,), 100.0 - call),
            )
            whole = call % interval == 0
            want, feature = reference(pipe.denoiser, x, t, bare, branch, None if whole else stored)
            stored = feature
            assert torch.equal(pipe.denoiser(x, t, context, sigma), want)
            assert whole or not torch.equal(want, pipe.denoiser(x, t, bare, sigma))


@pytest.mark.parametrize("plan", ["eager", "prepacked"])
def test_an_interval_of_one_is_off(plan: str) -> None:
    pipe = pipeline().planned(plan)
    want = pipe({"label": 1}, **CALL)
    off = cached(pipe, interval=1)({"label": 1}, **CALL)
    assert torch.equal(off.latents, want.latents)
    assert off.evaluations == want.evaluations == ldmkit.Evaluations(made=7)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm2", "euler-ancestral"])
@pytest.mark.parametrize("plan", ["eager", "prepacked"])
def test_runs_begin_anew_and_plans_agree(sampler: str, plan: str) -> None:
    pipe = cached(pipeline(), interval=3, branch=1)
    planned = pipe.planned(plan)
    prepared = planned.prepare({"label": 1}, sampler=sampler, **CALL)
    first, second = planned.run(prepared), planned.run(prepared)
    assert torch.equal(first.latents, second.latents) and first.evaluations == second.evaluations
    calls = prepared.evaluations
    assert first.evaluations is not None and first.evaluations.made == calls
    assert first.evaluations.shortened >= calls // 2
    eager = pipe({"label": 1}, sampler=sampler, **CALL)
    assert torch.allclose(first.latents, eager.latents, rtol=0, atol=1e-4 * float(eager.latents.abs().max()))


def test_threads_share_nothing() -> None:
    """Two runs of one prepared run take turns step by step in two threads."""
    pipe = cached(pipeline(), interval=2)
    prepared = pipe.prepare({"label": 1}, **CALL)
    want = pipe.run(prepared).latents
    barrier, found = threading.Barrier(2), {}

    def draw(number: int) -> None:
        found[number] = pipe.run(prepared, lambda step: barrier.wait(20)).latents

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(torch.equal(found[number], want) for number in range(2))


def test_patches_keep_features_of_their_own() -> None:
    inner = pipeline()
    patched = ldmkit.get("denoiser", "patched").wrap(inner.denoiser, kernel=8, stride=4)
    parts = {"codec": inner.codec, "process": inner.process, "conditioners": inner.conditioners}
    pipe = ldmkit.Pipeline.of(denoiser=patched, **parts, defaults={"size": (8, 16)})
    whole = pipe({"label": 1}, **CALL).latents
    near = cached(pipe, interval=2)({"label": 1}, **CALL).latents
    one = cached(pipe, interval=1)({"label": 1}, **CALL).latents
    assert torch.equal(one, whole) and not torch.equal(near, whole)


def test_pipelines_on_one_network_cut_where_each_says() -> None:
    """Two adapters of one name and another branch, both attached to the network that the pipelines share."""
    pipe = pipeline()
    alone = [cached(pipeline(), interval=2, branch=branch)({"label": 1}, **CALL) for branch in (0, 3)]
    assert not torch.equal(alone[0].latents, alone[1].latents)
    beside = [cached(pipe, interval=2, branch=branch) for branch in (0, 3)]
    for made, want in zip(beside, alone, strict=True):
        assert torch.equal(made({"label": 1}, **CALL).latents, want.latents)


def test_its_options() -> None:
    pipe = cached(pipeline(), interval=2)
    slow = pipe.tuned("cache", interval=1)
    assert torch.equal(slow({"label": 1}, **CALL).latents, pipeline()({"label": 1}, **CALL).latents)
    with pytest.raises(CompositionError, match="not-tunable"):
        pipe.tuned("cache", branch=1)
    with pytest.raises(CompositionError, match="unknown-port"):
        cached(pipeline(), branch=7)


def test_saved_with_the_model(tmp_path: Any) -> None:
    pipe = cached(pipeline(), interval=3)
    again = ldmkit.load(pipe.save(tmp_path / "model"))
    assert torch.equal(again({"label": 1}, **CALL).latents, pipe({"label": 1}, **CALL).latents)
