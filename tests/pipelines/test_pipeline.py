"""Whole pipelines: what a call means, on tiny real parts. Equality is exact unless a tolerance is stated."""

from __future__ import annotations

import inspect
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_parts
import torch
from PIL import Image

import ldmkit
from ldmkit.replaying import replay
from ldmkit.run.recipe import read_recipe

CLASSES = {"label": 1}
ROUNDING = 2e-5
"""Batches and single samples go through different kernels: float32 rounding over a few steps of values up to 10."""


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def boxes(*names: str) -> list[dict[str, object]]:
    return [{"label": name, "box": [0.1 * i, 0.1, 0.1 * i + 0.3, 0.6]} for i, name in enumerate(names)]


def test_fixed_signatures() -> None:
    call = inspect.signature(ldmkit.Pipeline.__call__).parameters
    assert list(call)[1:10] == [
        *("inputs", "negative", "size", "seeds", "steps", "start", "sampler", "grid", "guidance"),
    ]
    assert all(p.kind is p.KEYWORD_ONLY for n, p in call.items() if n not in ("self", "inputs"))
    assert call["seeds"].default == (0,)
    for function in (ldmkit.load, ldmkit.load_codec):
        parameters = inspect.signature(function).parameters
        assert list(parameters)[:6] == ["source", "config", "ema", "variant", "device", "dtype"]
        more = ["scale", "shift"] if function is ldmkit.load_codec else []
        assert list(parameters)[6:] == [*more, "verify", "mapped"]
        fixed = {"source": inspect.Parameter.empty, "verify": "fast", "mapped": True}
        assert {n: p.default for n, p in parameters.items()} == {n: fixed.get(n) for n in parameters}
    assert [*ldmkit.Start.model_fields] == ["image", "strength", "mask", "latents", "noised"]
    assert list(inspect.signature(ldmkit.get).parameters) == ["kind", "name"]


def test_attributes(scene_pipe: ldmkit.Pipeline) -> None:
    assert isinstance(scene_pipe.codec, ldmkit.Codec)
    assert isinstance(scene_pipe.denoiser, ldmkit.Denoiser)
    assert isinstance(scene_pipe.process, ldmkit.Process)
    assert isinstance(scene_pipe.spec, ldmkit.PipelineSpec)
    assert list(scene_pipe.conditioners) == ["layout", "label", "semantic"]


def test_output(kl_pipe: ldmkit.Pipeline) -> None:
    out = kl_pipe(CLASSES, seeds=[0, 1])
    assert out.images.shape == (2, 3, 16, 16) and out.images.dtype == torch.float32
    assert out.latents.shape == (2, 2, 4, 4)
    assert 0 <= out.images.min() < out.images.max() <= 1
    assert [p.size for p in out.pil()] == [(16, 16)] * 2
    decoded = kl_pipe.decode(out.latents)
    assert torch.equal(decoded, out.images)


def test_a_model_that_says_nothing_draws_in_thirty_steps(class_pipe: ldmkit.Pipeline) -> None:
    parts = {"codec": class_pipe.codec, "denoiser": class_pipe.denoiser, "process": class_pipe.process}
    silent = ldmkit.Pipeline.of(**parts, conditioners=class_pipe.conditioners, defaults={"size": (8, 8)})
    for pipe, steps in ((silent, 30), (class_pipe, 4)):
        assert [step.index for step in pipe.stream({"label": 1})] == list(range(steps))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp-2m-sde"])
def test_batch_is_each_alone(class_pipe: ldmkit.Pipeline, sampler: str) -> None:
    rows = [{"label": 0}, {"label": 3}, {}]
    together = class_pipe(rows, seeds=[5, 6, 7], sampler=sampler, guidance=2.0)
    for i, row in enumerate(rows):
        alone = class_pipe(row, seeds=[5 + i], sampler=sampler, guidance=2.0)
        torch.testing.assert_close(together.latents[i], alone.latents[0], atol=ROUNDING, rtol=ROUNDING)
    assert (together.latents[0] - together.latents[1]).abs().max() > 0.1


def test_layouts_of_different_lengths_in_a_batch(scene_pipe: ldmkit.Pipeline) -> None:
    rows = [{"layout": boxes("cat")}, {"layout": boxes("cat", "dog", "sky"), "label": 2}, {"label": 1}]
    together = scene_pipe(rows, seeds=[1, 2, 3], guidance={"layout": 2.0, "label": 3.0})
    for i, row in enumerate(rows):
        alone = scene_pipe(row, seeds=[i + 1], guidance={"layout": 2.0, "label": 3.0})
        torch.testing.assert_close(together.latents[i], alone.latents[0], atol=ROUNDING, rtol=ROUNDING)


def test_seeds_and_inputs_pair_up(class_pipe: ldmkit.Pipeline) -> None:
    many_seeds = class_pipe(CLASSES, seeds=[0, 1, 2])
    assert many_seeds.images.shape[0] == 3
    assert [r["seed"] for r in many_seeds.recipes] == [0, 1, 2]
    many_inputs = class_pipe([{"label": 0}, {"label": 1}], seeds=4)
    assert [r["seed"] for r in many_inputs.recipes] == [4, 4]
    assert [r["inputs"] for r in many_inputs.recipes] == [{"label": 0}, {"label": 1}]


def test_inputs_matter_and_seeds_repeat(class_pipe: ldmkit.Pipeline) -> None:
    first = class_pipe(CLASSES, seeds=[3]).latents
    assert torch.equal(first, class_pipe(CLASSES, seeds=[3]).latents)
    assert not torch.equal(first, class_pipe({"label": 2}, seeds=[3]).latents)
    assert not torch.equal(first, class_pipe(CLASSES, seeds=[4]).latents)


def test_global_generator_is_untouched(class_pipe: ldmkit.Pipeline) -> None:
    before = torch.get_rng_state()
    class_pipe(CLASSES, sampler="ddpm")
    assert torch.equal(before, torch.get_rng_state())


def test_two_threads_get_what_each_would_get_alone(scene_pipe: ldmkit.Pipeline) -> None:
    calls = [
        {"inputs": {"layout": boxes("cat"), "label": 1}, "guidance": 3.0, "sampler": "dpmpp-2m", "seeds": [1]},
        {"inputs": {"label": 4}, "guidance": {"label": 2.0}, "sampler": "ddpm", "seeds": [2, 3], "size": (16, 8)},
    ]
    alone = [scene_pipe(**call).latents for call in calls]
    results: list[list[torch.Tensor]] = [[], []]
    barrier = threading.Barrier(2)

    def work(which: int) -> None:
        barrier.wait()
        for _ in range(4):
            results[which].append(scene_pipe(**calls[which]).latents)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for which in range(2):
        assert len(results[which]) == 4
        assert all(torch.equal(latents, alone[which]) for latents in results[which])


def test_interleaved_streams_do_not_mix(class_pipe: ldmkit.Pipeline) -> None:
    options = {"sampler": "plms", "steps": 6}
    alone = [class_pipe({"label": c}, seeds=[c], **options).latents for c in (1, 2)]
    streams = [class_pipe.stream({"label": c}, seeds=[c], **options) for c in (1, 2)]
    pairs = list(zip(*streams, strict=True))
    for i in range(2):
        last = pairs[-1][i]
        assert torch.equal(last.x * class_pipe.process.alpha(last.sigma_next), alone[i])


def test_overrides_never_change_the_pipeline(class_pipe: ldmkit.Pipeline) -> None:
    state = {key: value.clone() for key, value in class_pipe.denoiser.state_dict().items()}
    spec, plain = class_pipe.spec.to_json(), class_pipe(CLASSES).latents
    start = {"image": picture(12, 12), "strength": 0.5}
    class_pipe(CLASSES, sampler="heun", grid="karras", guidance=4.0, steps=7, size=(12, 12), start=start)
    assert class_pipe.spec.to_json() == spec
    assert torch.equal(class_pipe(CLASSES).latents, plain)
    assert all(torch.equal(state[key], value) for key, value in class_pipe.denoiser.state_dict().items())


def test_callers_values_are_not_written_to(scene_pipe: ldmkit.Pipeline) -> None:
    image = torch.rand(3, 8, 8) * 2 - 1
    mask, labels = torch.zeros(1, 8, 8), torch.zeros(8, 8, dtype=torch.long)
    mask[..., :4] = 1
    kept = image.clone(), mask.clone(), labels.clone()
    inputs = {"semantic": labels, "label": 1}
    scene_pipe(inputs, start=ldmkit.Start(image=image, strength=0.7, mask=mask))
    assert inputs.keys() == {"semantic", "label"}
    assert all(torch.equal(a, b) for a, b in zip(kept, (image, mask, labels), strict=True))


def test_stream_yields_steps_and_can_be_left(class_pipe: ldmkit.Pipeline) -> None:
    steps = list(class_pipe.stream(CLASSES, steps=5))
    assert [s.index for s in steps] == [0, 1, 2, 3, 4]
    assert all(s.count == 5 and s.x.shape == s.x0.shape == (1, 3, 8, 8) for s in steps)
    assert all(a.sigma_next == b.sigma and a.sigma > a.sigma_next for a, b in itertools.pairwise(steps))
    stream = class_pipe.stream(CLASSES, steps=5)
    first = next(stream)
    stream.close()
    assert torch.equal(first.x, steps[0].x)
    assert torch.is_grad_enabled()
    out = class_pipe(CLASSES, steps=5)
    assert torch.equal(out.latents, steps[-1].x * class_pipe.process.alpha(steps[-1].sigma_next))


def test_on_step_sees_every_step(class_pipe: ldmkit.Pipeline) -> None:
    seen: list[int] = []
    class_pipe(CLASSES, steps=3, on_step=lambda step: seen.append(step.index))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(("strength", "run"), [(1.0, 10), (0.5, 5), (0.29, 2), (0.1, 1)])
def test_strength_is_the_share_of_steps(class_pipe: ldmkit.Pipeline, strength: float, run: int) -> None:
    start = ldmkit.Start(image=picture(8, 8), strength=strength)
    full = [s.sigma for s in class_pipe.stream(CLASSES, steps=10)]
    part = [s.sigma for s in class_pipe.stream(CLASSES, steps=10, start=start)]
    assert part == full[10 - run :]


def test_start_is_the_noised_picture(class_pipe: ldmkit.Pipeline) -> None:
    image = picture(8, 8)
    prepared = class_pipe.prepare(CLASSES, steps=10, seeds=[7], start={"image": image, "strength": 0.3})
    known = class_pipe.encode(image)
    noise = ldmkit.Noise([7], (3, 8, 8))(0, "start")
    torch.testing.assert_close(prepared.x, known + prepared.sigmas[0] * noise, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp-2m", "heun"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (14, 19)])
def test_inpainting_preserves_unmasked_pixels(kl_pipe: ldmkit.Pipeline, sampler: str, height: int, width: int) -> None:
    image, mask = picture(height, width), np.zeros((height, width), np.uint8)
    mask[3:9, 5:12] = 255
    start = ldmkit.Start(image=image, strength=0.8, mask=mask)
    out = kl_pipe(CLASSES, steps=5, sampler=sampler, start=start, guidance=2.0, seeds=[0, 1])
    pictures = out.pil()
    assert len(pictures) == 2
    for drawn in pictures:
        same = (np.asarray(drawn) == np.asarray(image)).all(-1)
        assert same[mask == 0].all()
        assert not same[mask == 255].all()


def test_sizes_that_do_not_fit_are_padded_and_cropped(kl_pipe: ldmkit.Pipeline) -> None:
    out = kl_pipe(CLASSES, size=(30, 34))
    assert out.images.shape[-2:] == (30, 34)
    assert out.latents.shape[-2:] == (8, 9)
    whole = kl_pipe(CLASSES, size=(32, 36))
    assert torch.equal(out.images, whole.images[..., :30, :34])
    latents = kl_pipe.encode(picture(30, 34))
    assert latents.shape == (1, 2, 8, 9)
    assert kl_pipe.decode(latents, (30, 34)).shape == (1, 3, 30, 34)
    assert kl_pipe(CLASSES, size=20).images.shape[-2:] == (20, 20)


def test_plane_sets_the_size(scene_pipe: ldmkit.Pipeline) -> None:
    labels = np.zeros((6, 10), np.int64)
    assert scene_pipe({"semantic": labels}).images.shape[-2:] == (6, 10)
    assert scene_pipe([{}, {"semantic": labels}]).images.shape == (2, 3, 6, 10)


@pytest.mark.parametrize("pipe", ["class_pipe", "kl_pipe", "scene_pipe"])
def test_save_and_load_is_bit_equal(pipe: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    made: ldmkit.Pipeline = request.getfixturevalue(pipe)
    folder = made.save(tmp_path / "model")
    again = ldmkit.load(folder)
    assert again.spec == made.spec and again.spec.hash == made.spec.hash
    for path, part in made.parts.items().items():
        loaded = again.parts.items()[path].state_dict()
        assert loaded.keys() == part.state_dict().keys()
        assert all(torch.equal(loaded[key], value) for key, value in part.state_dict().items())
    assert torch.equal(again(CLASSES, guidance=2.0).images, made(CLASSES, guidance=2.0).images)
    assert torch.equal(ldmkit.load_codec(folder).decode(torch.ones(1, made.codec.channels, 4, 4)),
                       made.codec.decode(torch.ones(1, made.codec.channels, 4, 4)))  # fmt: skip
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_saving_again_replaces(class_pipe: ldmkit.Pipeline, kl_pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    kl_pipe.save(tmp_path / "model")
    class_pipe.save(tmp_path / "model")
    assert ldmkit.load(tmp_path / "model").spec == class_pipe.spec
    assert not (tmp_path / "model" / "codec.safetensors").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float64])
def test_load_converts(class_folder: Path, dtype: str | torch.dtype) -> None:
    pipe = ldmkit.load(class_folder, dtype=dtype)
    wanted = torch.bfloat16 if isinstance(dtype, str) else dtype
    assert {p.dtype for p in pipe.denoiser.parameters()} == {wanted}
    assert pipe(CLASSES, guidance=2.0).images.dtype == torch.float32


def test_none_in_a_config_survives_saving(scene_folder: Path) -> None:
    assert ldmkit.load(scene_folder).conditioners["semantic"].config.dim is None


def test_recipe_replays_bit_equal(class_folder: Path, tmp_path: Path) -> None:
    pipe = ldmkit.load(class_folder)
    image = tmp_path / "in.png"
    picture(8, 8).save(image)
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    out = pipe(
        {"label": 2}, seeds=[11, 12], steps=6, sampler=ldmkit.get("sampler", "ddim")(eta=0.5), grid="trailing",
        guidance=3.0, negative={"label": 0}, start={"image": image, "strength": 0.7, "mask": mask},
    )  # fmt: skip
    paths = out.save(tmp_path / "out.png")
    assert len(paths) == 2
    image.unlink()  # the recipe carries the picture itself
    for i, path in enumerate(paths):
        recipe = read_recipe(path)
        assert recipe["model"] == str(class_folder.absolute()) and recipe["spec"] == pipe.spec.hash
        assert recipe["sampler"]["type"] == "ddim"
        assert recipe["sampler"]["config"] == {"eta": 0.5, "limits": None, "noise": "network", "revision": 1}
        assert recipe["parts"]["denoiser"].startswith("unet @ ldmkit ")
        again = replay(pipe, recipe)
        torch.testing.assert_close(again.images[0], out.images[i], atol=ROUNDING, rtol=0)


def test_recipe_carries_maps_and_layouts(scene_pipe: ldmkit.Pipeline) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (8, 8))
    inputs = {"layout": boxes("dog", "tree"), "semantic": labels, "label": "3"}
    out = scene_pipe(inputs, guidance={"layout": 2.0, "semantic": 1.5}, sampler="unipc")
    assert torch.equal(replay(scene_pipe, out.recipes[0]).images, out.images)


def test_output_names(class_pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    assert [p.name for p in class_pipe(CLASSES).save(tmp_path / "one.png")] == ["one.png"]
    assert [p.name for p in class_pipe(CLASSES, seeds=[0, 1]).save(str(tmp_path / "two.PNG"))] == [
        "two-0.PNG", "two-1.PNG",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.png", "two-0.PNG", "two-1.PNG"]
    out = class_pipe(CLASSES)
    again = np.asarray(Image.open(tmp_path / "one.png"))
    assert np.array_equal(again, np.asarray(out.pil()[0]))


def test_guidance_numbers_and_mappings(scene_pipe: ldmkit.Pipeline) -> None:
    inputs = {"layout": boxes("cat"), "label": 1}
    cfg = ldmkit.get("guidance", "cfg")
    plain = scene_pipe(inputs).latents
    assert torch.equal(scene_pipe(inputs, guidance=1).latents, plain)
    assert torch.equal(scene_pipe(inputs, guidance="none").latents, plain)
    three = scene_pipe(inputs, guidance=3).latents
    assert torch.equal(scene_pipe(inputs, guidance=cfg(scale=3)).latents, three)
    assert torch.equal(scene_pipe(inputs, guidance={"type": "cfg", "config": {"scale": 3.0}}).latents, three)
    equal = scene_pipe(inputs, guidance={"layout": 3.0, "label": 3.0, "semantic": 3.0}).latents
    # equal scales are plain CFG in exact arithmetic; the factors are summed in another order
    torch.testing.assert_close(equal, three, atol=1e-3, rtol=1e-4)
    unlike = scene_pipe(inputs, guidance={"layout": 4.0, "label": 1.0}).latents
    assert (unlike - three).abs().max() > 1e-3
    nothing = scene_pipe({}, guidance=0).latents
    # without any condition both views are the same, and so is what guidance makes of them
    torch.testing.assert_close(scene_pipe({}, guidance=5.0).latents, scene_pipe({}).latents, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(nothing, scene_pipe({}).latents, atol=ROUNDING, rtol=ROUNDING)


def test_negative_takes_the_place_of_the_null(class_pipe: ldmkit.Pipeline) -> None:
    away = class_pipe(CLASSES, guidance=3.0, negative={"label": 2}).latents
    assert (away - class_pipe(CLASSES, guidance=3.0).latents).abs().max() > 1e-3
    null = class_pipe(CLASSES, guidance=3.0, negative={}).latents
    assert torch.equal(null, class_pipe(CLASSES, guidance=3.0).latents)
    # scale 0 leaves the negative alone
    only = class_pipe(CLASSES, guidance=0, negative={"label": 2}).latents
    torch.testing.assert_close(only, class_pipe({"label": 2}).latents, atol=ROUNDING, rtol=ROUNDING)


def test_explicit_grid(class_pipe: ldmkit.Pipeline) -> None:
    grid = {"type": "explicit", "config": {"values": [5.0, 1.0, 0.0]}}
    assert [s.sigma for s in class_pipe.stream(CLASSES, steps=2, grid=grid)] == [5.0, 1.0]


@pytest.mark.parametrize("process", ["flow", "edm"])
def test_other_processes(process: str) -> None:
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", process)(),
        conditioners={"label": tiny_parts.label()},
        defaults={"size": (8, 8), "grid": {"type": "karras"}},
    )
    assert pipe(CLASSES, steps=3, guidance=2.0).images.isfinite().all()


def test_encode_takes_one_several_or_a_batch(kl_pipe: ldmkit.Pipeline) -> None:
    one = kl_pipe.encode(picture(16, 16))
    both = kl_pipe.encode([picture(16, 16), picture(16, 16, seed=1)])
    assert one.shape == (1, 2, 4, 4) and both.shape == (2, 2, 4, 4)
    torch.testing.assert_close(both[:1], one, atol=ROUNDING, rtol=ROUNDING)
    noisy = kl_pipe.encode(picture(16, 16), noise=torch.ones(1, 2, 4, 4))
    assert not torch.equal(noisy, one)


def test_unconditional_pipeline() -> None:
    pipe = ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, context_dim=None),
        process=ldmkit.get("process", "discrete")(),
    )
    assert pipe({}, size=8, steps=2, seeds=[0, 1]).images.shape == (2, 3, 8, 8)
