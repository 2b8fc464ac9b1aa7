"""What a run will take is known before it starts, and what no machine has, or nobody means, is refused with that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch

import ldmkit
from ldmkit.bounds import MAX_BATCH, MAX_PIXELS, MAX_STEPS
from ldmkit.cli import main
from ldmkit.errors import InputError, SourceError
from ldmkit.replaying import replay
from ldmkit.run import estimate, machine
from ldmkit.run.estimate import estimate_run
from ldmkit.run.machine import Room

GIB = 2**30
SD = {"channels": 4, "widths": (320, 640, 1280, 1280), "attention": ("cross", "cross", "cross", "none"),
      "heads": 8, "context_dim": 768}  # fmt: skip
XL = {"channels": 4, "widths": (320, 640, 1280), "attention": ("none", "cross", "cross"), "depth": (1, 2, 10),
      "head_dim": 64, "context_dim": 2048, "vector": "mlp", "vector_dim": 2816}  # fmt: skip
VAE = {"widths": (128, 256, 512, 512), "z_channels": 4}


def holding(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(estimate, "room", lambda device: Room(size, "the machine's memory"))


@pytest.mark.parametrize("options", [{}, {"guidance": 3.0}, {"seeds": [1, 2, 3], "sampler": "heun", "steps": 5}])
def test_it_says_what_the_run_does(class_pipe: ldmkit.Pipeline, options: dict[str, Any]) -> None:
    prepared = class_pipe.prepare({"label": 1}, **options)
    told, seen = prepared.estimate, []
    network = class_pipe.denoiser
    hook = network.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[0]))
    class_pipe.run(prepared)
    hook.remove()
    assert (told.evaluations, told.rows) == (len(seen), max(seen)) == (prepared.evaluations, prepared.rows)
    assert told.pictures == len(prepared.request.seeds) and told.size == prepared.size
    assert told.time == "seconds" and told.fits and told.room is not None
    assert f"{len(seen)} evaluations of {max(seen)} row" in str(told)


def test_of_another_sampler(class_pipe: ldmkit.Pipeline) -> None:
    first = class_pipe.prepare({"label": 1}, steps=4)
    other = first.again(sampler=ldmkit.get("sampler", "heun")(), grid=first.request.grid, steps=10)
    assert other.estimate.evaluations == other.evaluations > first.evaluations
    assert other.estimate.bytes == first.estimate.bytes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 16384}, "16384x16384"),
        ({"seeds": range(10**7)}, "10000000 pictures"),
        ({"seeds": [0] * (MAX_BATCH + 1)}, f"more than {MAX_BATCH} pictures"),
        ({"steps": 10**9}, f"more than {MAX_STEPS} steps"),
        ({"negative": [{}] * (MAX_BATCH + 1)}, f"more than {MAX_BATCH} pictures"),
        ({"size": (1, MAX_PIXELS + 1)}, f"more than {MAX_PIXELS} pixels"),
    ],
)
def test_what_nobody_means(class_pipe: ldmkit.Pipeline, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match="allow_large") as caught:
        class_pipe.prepare({"label": 1}, **options)
    assert caught.value.code == "input.too-much-work"
    assert said in str(caught.value) and "of memory" in str(caught.value)


def test_a_batch_by_its_inputs(class_pipe: ldmkit.Pipeline) -> None:
    with pytest.raises(InputError, match=f"more than {MAX_BATCH} pictures"):
        class_pipe.prepare([{"label": 1}] * (MAX_BATCH + 1))


def test_what_the_machine_has_no_memory_for(
    class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed = class_pipe.prepare({"label": 1}, size=64).estimate.bytes
    weights = sum(p.nbytes for part in class_pipe.parts.items().values() for p in [*part.parameters(), *part.buffers()])
    holding(monkeypatch, needed + weights - 1)
    with pytest.raises(InputError, match="memory are available besides the weights"):
        class_pipe({"label": 1}, size=64, steps=1)
    same = class_pipe({"label": 1}, size=64, steps=1, allow_large=True)
    holding(monkeypatch, needed + weights)
    assert torch.equal(class_pipe({"label": 1}, size=64, steps=1).images, same.images)


def test_the_codec_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_parts.class_pipeline("kl")
    latents = pipe.encode(torch.zeros(2, 3, 64, 64))
    holding(monkeypatch, 2**20)
    for call, given in ((pipe.encode, torch.zeros(2, 3, 64, 64)), (pipe.decode, latents)):
        with pytest.raises(InputError, match=r"input\.too-much-work.*2 pictures of 64x64"):
            call(given)
        call(given, allow_large=True)


def test_tiles_need_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec within a budget makes room for a picture that the whole one has none for."""
    whole = tiny_parts.class_pipeline("kl")
    tiled = ldmkit.Pipeline.of(
        codec=ldmkit.get("codec", "tiled").wrap(whole.codec, budget_mib=1), denoiser=whole.denoiser,
        process=whole.process, conditioners=whole.conditioners, defaults=whole.defaults,
    )  # fmt: skip
    sizes = {"size": 512, "steps": 1}
    most, less = (pipe.prepare({"label": 1}, **sizes).estimate.bytes for pipe in (whole, tiled))
    assert less < most
    holding(monkeypatch, (most + less) // 2)
    tiled.prepare({"label": 1}, **sizes)
    with pytest.raises(InputError, match="a tiled codec"):
        whole.prepare({"label": 1}, **sizes)


@pytest.mark.parametrize(("config", "side", "dtype"), [
    (SD, 512, torch.float32), (SD, 768, torch.float16), (XL, 1024, torch.float16), (XL, 1024, torch.float32),
])  # fmt: skip
@pytest.mark.parametrize("batch", [1, 8])
def test_ordinary_runs_pass_on_24_gib(
    config: dict[str, Any], side: int, dtype: torch.dtype, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        denoiser = ldmkit.get("denoiser", "unet")(config).to(dtype)
        codec = ldmkit.get("codec", "kl")(VAE).to(dtype)
    weights = sum(p.nbytes for part in (denoiser, codec) for p in part.parameters())
    holding(monkeypatch, 24 * GIB - weights)
    told = estimate_run(
        codec, denoiser, [], pictures=batch, views=2, steps=50, evaluations=50, size=(side, side), starts=1
    )
    estimate.check_estimate(told, "size", False)
    assert 0.2 * GIB < told.bytes < 6 * GIB


def test_large_pictures_of_a_batch_decode_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_parts.class_pipeline("kl")
    latents, seen = torch.randn(5, 2, 8, 8), []
    together = [pipe.decode(row[None]) for row in latents]
    monkeypatch.setattr(estimate, "GROUP", 2 * pipe.codec.footprint(1, (32, 32), "decode").bytes)
    hook = pipe.codec.decoder.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    torch.testing.assert_close(pipe.decode(latents), torch.cat(together), rtol=0, atol=1e-5)
    hook.remove()
    assert seen == [2, 2, 1]
    images, noise = torch.rand(3, 3, 32, 32) * 2 - 1, torch.randn(3, 2, 8, 8)
    alone = torch.cat([pipe.encode(image[None], drawn[None]) for image, drawn in zip(images, noise, strict=True)])
    torch.testing.assert_close(pipe.encode(images, noise), alone, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="noise"):
        pipe.encode(images, noise[:2])


def test_a_strangers_recipe_keeps_the_same_bounds(class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    output = class_pipe({"label": 1}, steps=1)
    recipe = json.loads(json.dumps(output.recipes[0]))
    with pytest.raises(SourceError, match="recipe-needs"):
        replay(class_pipe, {**recipe, "steps": MAX_STEPS + 1})
    with pytest.raises(SourceError, match="recipe-needs"):
        replay(class_pipe, {**recipe, "size": [16384, 16384]})
    holding(monkeypatch, 1)
    with pytest.raises(InputError, match="too-much-work"):
        replay(class_pipe, recipe)
    assert torch.equal(replay(class_pipe, recipe, trust=True).images, output.images)


def test_the_command_line(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["sample", str(class_folder), "--label", "1", "--steps", "1", "--out", str(tmp_path / "a.png")]
    assert main([*call, "-n", "10000000"]) == 2
    assert "too-much-work" in capsys.readouterr().err
    assert main([*call[:-1], str(tmp_path / "many"), "-n", "4097"]) == 2 and not (tmp_path / "many").exists()
    assert "4097 pictures" in capsys.readouterr().err
    holding(monkeypatch, 1)
    assert main(call) == 2
    assert "--yes" in capsys.readouterr().err and not list(tmp_path.glob("*.png"))
    assert main([*call, "--yes"]) == 0
    picture = str(tmp_path / "a.png")
    latents = str(tmp_path / "l.safetensors")
    for command in (["encode", str(class_folder), picture, "--out", latents],
                    ["decode", str(class_folder), latents, "--out", str(tmp_path / "d.png")]):  # fmt: skip
        assert main(command) == 2
        assert main([*command, "--yes"]) == 0


def test_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least limit on the way to the root counts, of either version, mounted as the kernel or a container has it."""
    own, root = tmp_path / "own", tmp_path / "cgroup"
    monkeypatch.setattr(machine, "_OWN_CGROUPS", own)
    monkeypatch.setattr(machine, "_CGROUPS", root)
    monkeypatch.setattr(machine, "_rlimit", lambda name: None)
    physical = machine.room(torch.device("cpu"))
    own.write_text("0::/user/job\n")
    for group, limit in (("user/job", "max"), ("user", "1048576"), ("", "2097152")):
        (root / group).mkdir(parents=True, exist_ok=True)
        (root / group / "memory.max").write_text(limit + "\n")
    assert machine.room(torch.device("cpu")) == Room(2**20, "the memory limit of its control group")
    own.write_text("5:cpu,memory:/x\n4:memory:/docker/abc\n")
    assert machine.room(torch.device("cpu")) == physical
    (root / "memory").mkdir()
    (root / "memory" / "memory.limit_in_bytes").write_text("4096")
    assert machine.room(torch.device("cpu")) == Room(4096, "the memory limit of its control group")
    own.write_text("damaged")
    assert machine.room(torch.device("cpu")) == physical
    own.unlink()
    assert machine.room(torch.device("cpu")) == physical


def test_what_ulimit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_rlimit", lambda name: 12345 if name == "RLIMIT_AS" else None)
    assert machine.room(torch.device("cpu")) == Room(12345, "the address space limit set by `ulimit`")


def test_a_machine_that_does_not_say(class_pipe: ldmkit.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "room", lambda device: None)
    assert class_pipe.prepare({"label": 1}).estimate.fits
