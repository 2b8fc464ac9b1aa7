"""What may happen beside a run: moving its parts, writing into what a callback sees, dropping pipelines of adapters."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest
import tiny_parts
import torch

import ldmkit

L = {"label": 1}


def adapted(pipe: ldmkit.Pipeline, name: str = "hint") -> ldmkit.Pipeline:
    """The pipeline with a fresh ControlNet."""
    config = {"unet": pipe.denoiser.config.model_dump(), "hint_channels": 3, "hint_widths": (4,)}
    adapter = tiny_parts.part("adapter", "controlnet", config, seed=7)
    hint = ldmkit.get("conditioner", "hint")({})
    return pipe.with_adapter(name, adapter, {"hint": hint})


def taps(pipe: ldmkit.Pipeline) -> int:
    return sum(len(port.taps) for port in pipe.denoiser.ports.values())


def write_x(step: ldmkit.Step) -> None:
    step.x.zero_()


def write_x0(step: ldmkit.Step) -> None:
    step.x0.fill_(3.0)


def write_numpy(step: ldmkit.Step) -> None:
    step.x.numpy()[:] = 5.0  # past the version counter of the tensor


@pytest.mark.parametrize("write", [write_x, write_x0, write_numpy])
@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp-2m", "heun", "euler-ancestral"])
def test_a_callback_cannot_change_the_picture(
    class_pipe: ldmkit.Pipeline, write: Callable[[ldmkit.Step], None], sampler: str
) -> None:
    wanted = class_pipe(L, steps=4, sampler=sampler).images
    assert torch.equal(class_pipe(L, steps=4, sampler=sampler, on_step=write).images, wanted)
    last = None
    prepared = class_pipe.prepare(L, steps=4, sampler=sampler)
    for step in class_pipe.stream(L, steps=4, sampler=sampler):
        last = step.copied()
        write(step)
    assert last is not None and torch.equal(class_pipe.finish(prepared, last).images, wanted)


def test_nothing_is_copied_where_nobody_looks(class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldmkit.Step, "copied", lambda step: pytest.fail("copied"))
    class_pipe(L, steps=2)


@pytest.mark.parametrize("what", ["cpu", torch.float64])
def test_a_callback_cannot_move_the_parts(what: object) -> None:
    pipe = tiny_parts.class_pipeline()
    wanted = pipe(L).images
    with pytest.raises(ldmkit.RunError, match=r"run\.busy.*UNet.*close\(\)"):
        pipe.to("cpu").planned("eager")(L, on_step=lambda _: pipe.to(what))  # type: ignore[arg-type, return-value]
    assert torch.equal(pipe(L).images, wanted)
    assert pipe.to(torch.float64).denoiser.dtype == torch.float64


def test_parts_are_not_moved_during_the_run_of_another_thread() -> None:
    pipe = tiny_parts.class_pipeline()
    wanted, inside, go = pipe(L).images, threading.Event(), threading.Event()
    found = []

    def wait(step: ldmkit.Step) -> None:
        inside.set()
        assert go.wait(600)

    thread = threading.Thread(target=lambda: found.append(pipe(L, on_step=wait).images))
    thread.start()
    assert inside.wait(600)
    with pytest.raises(ldmkit.RunError, match=r"run\.busy"):
        pipe.to(torch.float64)
    go.set()
    thread.join()
    assert torch.equal(found[0], wanted)
    pipe.to(torch.float64)


def test_a_stream_that_is_closed_or_dropped_holds_nothing() -> None:
    pipe = tiny_parts.class_pipeline()
    stream = pipe.stream(L)
    next(stream)
    with pytest.raises(ldmkit.RunError, match=r"run\.busy"):
        pipe.to(torch.float64)
    stream.close()  # type: ignore[attr-defined]
    pipe.to(torch.float64)
    for _ in pipe.stream(L):
        break
    pipe.to(torch.float32)


def test_a_run_prepared_before_a_move_is_refused() -> None:
    pipe = tiny_parts.class_pipeline()
    prepared, stream = pipe.prepare(L), pipe.stream(L)
    pipe.to(torch.float64)
    with pytest.raises(ldmkit.RunError, match=r"run\.stale-run.*float32.*float64.*prepare it again"):
        pipe.run(prepared)
    with pytest.raises(ldmkit.RunError, match=r"run\.stale-run"):
        next(stream)


def test_steps_of_a_prepared_run_hold_the_network() -> None:
    """Asked for one by one without a pipeline's `run`: moved under them, they would end in an error of torch."""
    pipe = tiny_parts.class_pipeline()
    prepared = pipe.prepare(L)
    wanted = pipe.run(prepared).latents
    steps = prepared.steps()
    next(steps)
    with pytest.raises(ldmkit.RunError, match=r"run\.busy"):
        pipe.to(torch.float64)
    *_, last = steps
    assert torch.equal(pipe.finish(prepared, last).latents, wanted)
    pipe.to(torch.float64)
    with pytest.raises(ldmkit.RunError, match=r"run\.stale-run"):
        next(prepared.steps())
    pipe.to(torch.float32)


def test_two_threads_at_one_stream() -> None:
    """Each step is drawn once; who comes while one is being drawn is told so."""
    pipe = tiny_parts.class_pipeline()
    inside, go, found = threading.Event(), threading.Event(), []

    class Waiting:
        def __call__(self, *given: object) -> torch.Tensor:
            inside.set()
            assert go.wait(60)
            return pipe.denoiser(*given)

    waiting = ldmkit.Pipeline(pipe.parts, pipe.wiring, pipe.defaults, network=Waiting())
    stream = waiting.stream(L, steps=2)
    other = threading.Thread(target=lambda: found.extend(stream))
    other.start()
    assert inside.wait(60)
    for act in (lambda: next(stream), stream.close):  # type: ignore[attr-defined]
        with pytest.raises(ldmkit.RunError, match=r"run\.stream-busy.*separate streams"):
            act()
    go.set()
    other.join(60)
    assert [step.index for step in found] == [0, 1] and list(stream) == []
    pipe.to(torch.float64)


def test_a_stream_that_another_thread_drops() -> None:
    pipe = tiny_parts.class_pipeline()
    held = [pipe.stream(L)]
    next(held[0])
    other = threading.Thread(target=held.clear)
    other.start()
    other.join(60)
    gc.collect()
    pipe.to(torch.float64)


def test_adapters_and_plans_come_and_go_under_the_run_of_another_thread() -> None:
    pipe = tiny_parts.class_pipeline()
    wanted, inside, go = pipe(L).images, threading.Event(), threading.Event()
    found: list[torch.Tensor] = []

    def wait(step: ldmkit.Step) -> None:
        inside.set()
        assert go.wait(60)

    other = threading.Thread(target=lambda: found.append(pipe(L, on_step=wait).images))
    other.start()
    assert inside.wait(60)
    hinted = adapted(pipe)
    picture = torch.zeros(3, 8, 8)
    hinted({**L, "hint": picture}), hinted.tuned("hint", scale=0.5)({**L, "hint": picture})
    assert torch.equal(pipe.planned("eager")(L).images, wanted)
    del hinted
    gc.collect()
    go.set()
    other.join(60)
    assert torch.equal(found[0], wanted) and taps(pipe) == 0


def test_an_output_outlives_a_move() -> None:
    pipe = tiny_parts.class_pipeline("kl")
    out = pipe(L)
    pipe.to(torch.float64)
    assert out.recipes[0]["seed"] == 0 and out.images.dtype == torch.float32
    assert pipe(L, start=out).images.shape == out.images.shape


def test_runs_wait_for_a_move() -> None:
    from ldmkit.run.busy import moving, using

    pipe = tiny_parts.class_pipeline()
    parts, seen = list(pipe.parts.items().values()), []

    def use() -> None:
        with using(parts):
            seen.append("used")

    thread = threading.Thread(target=use)
    with moving(parts):
        thread.start()
        thread.join(0.05)
        seen.append("moved")
    thread.join()
    assert seen == ["moved", "used"]


def test_dropped_adapters_leave_no_taps() -> None:
    pipe = tiny_parts.class_pipeline()
    wanted, none = pipe(L).images, taps(pipe)
    for _ in range(300):
        adapted(pipe)
    gc.collect()
    assert taps(pipe) == none == 0 and not any(port._holds for port in pipe.denoiser.ports.values())
    assert torch.equal(pipe(L).images, wanted)


def test_an_adapter_stays_as_long_as_anything_draws_with_it() -> None:
    pipe = tiny_parts.class_pipeline()
    inputs = {**L, "hint": torch.full((3, 8, 8), 0.5)}
    first = adapted(pipe)
    wanted, plain = first(inputs).images, pipe(L).images
    assert not torch.equal(wanted, plain)
    count = taps(pipe)
    derived, prepared, stream = first.planned("eager"), first.prepare(inputs), first.stream(inputs)
    tuned = first.tuned("hint", scale=0.0)
    assert taps(pipe) == count
    del first
    gc.collect()
    assert torch.equal(derived(inputs).images, wanted) and torch.equal(tuned(inputs).images, plain)
    last = list(stream)[-1]
    assert torch.equal(derived.finish(prepared, last).images, wanted)
    del derived, tuned, stream
    gc.collect()
    assert torch.equal(list(prepared.steps())[-1].x, last.x), "a prepared run keeps its adapters"
    del prepared
    gc.collect()
    assert taps(pipe) == 0


def test_a_stream_that_is_collected_with_its_pipeline_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    stream = tiny_parts.class_pipeline().stream(L, steps=3)
    next(stream)
    cycle: list[object] = [stream]  # found by the collector, which clears weak references before it ends the run
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    assert said == []
