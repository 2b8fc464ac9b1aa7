"""Files of changes: damaged, for another model, of a kind that is not built; saving, replaying, the command."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import InputError, SourceError, WeightsError
from ldmkit.replaying import replay, with_updates

TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"  # 128 to 128 in the bundled model
FLAT = "lora_unet_" + TO_Q.replace(".", "_")
DOWN, UP = f"{FLAT}.lora_down.weight", f"{FLAT}.lora_up.weight"
WORDS = {
    f"lora_te_text_model_encoder_layers_0_mlp_fc1.{end}.weight": torch.ones(2, 2) for end in ("lora_down", "lora_up")
}
CALL: dict[str, Any] = {"steps": 2, "seeds": [1]}
L = {"label": "lake"}


@pytest.fixture(scope="module")
def pipe() -> ldmkit.Pipeline:
    return ldmkit.load("miniworld")


def pair(rank: int = 2, inputs: int = 128, outputs: int = 128, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, generator=generator)
    return {
        f"{FLAT}.lora_down.weight": down,
        f"{FLAT}.lora_up.weight": torch.randn(outputs, rank, generator=generator) / 4,
    }


def saved(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path


NAN = torch.tensor(float("nan"))
BAD: dict[str, tuple[dict[str, Tensor], type[Exception], str]] = {
    "half a pair": ({DOWN: torch.ones(2, 128)}, SourceError, r"half-a-pair.*down.*belongs with .*lora_down"),
    "another base": (pair(2, 320, 320), SourceError, r"other-base.*shape \[320, 320\], .*has \[128, 128\]"),
    "ranks that differ": (
        {DOWN: torch.ones(2, 128), UP: torch.ones(128, 3)},
        WeightsError, r"wrong-shape.*down \[2, 128\], up \[128, 3\]",
    ),
    "a layer that is not there": (
        {key.replace("mid_block", "mid_blocc"): value for key, value in pair().items()},
        SourceError, r"other-base.*mid_blocc_att.*did you mean 'mid_block_att",
    ),
    "NaN for alpha": ({**pair(), f"{FLAT}.alpha": NAN}, WeightsError, r"not-finite.*alpha"),
    "NaN among weights": ({**pair(), DOWN: torch.full((2, 128), float("nan"))}, WeightsError, "not-finite"),
    "alpha of two numbers": ({**pair(), f"{FLAT}.alpha": torch.ones(2)}, WeightsError, "wrong-shape.*one number"),
    "two dialects": (
        {**pair(), f"lora_unet_{TO_Q.replace('.', '_')}.lora_A.weight": torch.ones(2, 128)},
        SourceError, "duplicate-key.*two keys are the down.*lora_A",
    ),
    "OFT": ({**pair(), f"{FLAT}.oft_blocks": torch.ones(2, 4, 4)}, SourceError, "unsupported.*oft_blocks.*OFT"),
    "a norm": ({**pair(), f"{FLAT}.w_norm": torch.ones(4)}, SourceError, "unsupported.*w_norm.*norm"),
    "FLUX": (
        {f"lora_unet_double_blocks_0_img_attn_qkv.lora_{end}.weight": torch.ones(2, 2) for end in ("down", "up")},
        SourceError, "other-base.*FLUX",
    ),
    "a transformer": (
        {f"transformer.blocks.0.attn.to_q.{end}.weight": torch.ones(2, 2) for end in ("lora_A", "lora_B")},
        SourceError, "other-base.*diffusion transformer",
    ),
    "text encoders alone": (WORDS, SourceError, "other-base.*none of its 1 layers.*no CLIP text encoder"),
    "a model": ({"model.diffusion_model.out.2.weight": torch.ones(2)}, SourceError, "unrecognised.*ldmkit.load"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(pipe: ldmkit.Pipeline, tmp_path: Path, name: str) -> None:
    """Each is refused by name; nothing is attached."""
    tensors, error, words = BAD[name]
    with pytest.raises(error, match=words) as caught:
        pipe.with_lora(saved(tmp_path / "a.safetensors", tensors))
    assert "a.safetensors" in str(caught.value)
    assert not any(port.taps for port in pipe.denoiser.ports.values())


def test_keys_that_are_left_out_are_counted(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """Those of a text encoder that this pipeline does not have."""
    with pytest.warns(UserWarning, match="2 of 4 keys are used; 2 are not: the pipeline has no CLIP text encoder"):
        pipe.with_lora(saved(tmp_path / "a.safetensors", {**pair(), **WORDS}))


@pytest.mark.parametrize(
    "text",
    ["{", "[]", json.dumps({"unet.lora_alpha": "4"}), json.dumps({"unet.alpha_pattern": {"to_q": None}, "unet.r": 2})],
)
def test_metadata_that_is_damaged(pipe: ldmkit.Pipeline, tmp_path: Path, text: str) -> None:
    own = {f"unet.{TO_Q}.lora_{end}.weight": value for end, value in zip("AB", pair().values(), strict=True)}
    with pytest.raises(SourceError, match="metadata"):
        pipe.with_lora(saved(tmp_path / "a.safetensors", own, {"lora_adapter_metadata": text}))


@pytest.mark.parametrize(
    "options", [{"scale": float("nan")}, {"scale": "much"}, {"start": 0.8, "end": 0.2}, {"end": 2}]
)
def test_options_out_of_range(pipe: ldmkit.Pipeline, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ldmkit.SpecError):
        pipe.with_lora(saved(tmp_path / "a.safetensors", pair()), **options)


def test_paths(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    for source in (None, 3, b"a"):
        with pytest.raises(InputError, match="path-type"):
            pipe.with_lora(source)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="not-found"):
        pipe.with_lora(tmp_path / "absent.safetensors")
    with pytest.raises(SourceError, match="unrecognised"):
        pipe.with_lora(tmp_path)
    file = saved(tmp_path / "a.safetensors", pair())
    with pytest.raises(InputError, match="name-taken"):
        pipe.with_lora(file, name="a").with_lora(file, name="a")
    assert list(pipe.with_lora(file).with_lora(file).adapters) == ["a", "a-2"]
    with pytest.raises(SourceError, match=r"LoRA with kohya's keys.*with_lora.*--lora"):
        ldmkit.load(file)


def test_a_pickle_runs_nothing(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    torch.save(pair(), tmp_path / "a.pt")
    safe = pipe.with_lora(saved(tmp_path / "a.safetensors", pair()))(L, **CALL)
    assert torch.equal(pipe.with_lora(tmp_path / "a.pt")(L, **CALL).latents, safe.latents)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({**pair(), "x": Evil()}, tmp_path / "b.pt")
    with pytest.raises(SourceError):
        pipe.with_lora(tmp_path / "b.pt")
    assert not (tmp_path / "ran").exists()


def test_a_part_of_the_run(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    """The first half with it, the second without: half of each run's steps, one after the other."""
    file = saved(tmp_path / "a.safetensors", pair())
    call = {"steps": 4, "sampler": "euler", "seeds": [1]}
    mine, seen = pipe.with_lora(file, start=0.5), []
    plain, whole = pipe(L, **call), pipe.with_lora(file)(L, **call)
    got = mine(L, **call, on_step=lambda step: seen.append(step.x.clone()))
    first: list[Tensor] = []
    pipe(L, **call, on_step=lambda step: first.append(step.x.clone()))
    assert torch.equal(seen[1], first[1]) and not torch.equal(seen[2], first[2])
    assert not torch.equal(got.latents, plain.latents) and not torch.equal(got.latents, whole.latents)
    with pytest.raises(ldmkit.CompositionError, match=r"not-fusable.*0\.5 to 1 of the run"):
        mine.fused()


def test_saved_with_the_pipeline(pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    mine = pipe.with_lora(saved(tmp_path / "a.safetensors", pair()), 0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = ldmkit.load(mine.save(tmp_path / "model"))
    assert torch.equal(back(L, **CALL).latents, mine(L, **CALL).latents)
    assert back.adapters["a"].config == mine.adapters["a"].config and back.updates == ()


def test_replay(pipe: ldmkit.Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture's recipe names the files with their digests; those beside the picture are read without trust."""
    file = saved(tmp_path / "a.safetensors", pair())
    arguments = ["sample", "miniworld", "--label", "lake", "--steps", "2", "--lora", f"{file}:0.7", "--lora", str(file)]
    assert main([*arguments, "--out", str(tmp_path / "p.png")]) == 0
    want = pipe.with_lora(file, 0.7).with_lora(file)(L, steps=2, seeds=[0])
    recipe = ldmkit.read_recipe(tmp_path / "p.png")
    assert [(one["name"], one["scale"]) for one in recipe["updates"]] == [("a", 0.7), ("a-2", 1.0)]
    assert torch.equal(replay(with_updates(pipe, recipe), recipe).images, want.images)
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "p.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] == 0
    saved(file, pair(seed=1))
    assert main(["replay", str(tmp_path / "p.png")]) != 0
    assert "source.other-update" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    shutil.move(tmp_path / "p.png", tmp_path / "other" / "p.png")
    assert main(["replay", str(tmp_path / "other" / "p.png")]) != 0
    assert "the file of changes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"), [("absent.safetensors", "not-found"), ("a.safetensors:much", "scale-range")]
)
def test_the_command_line(tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "a.safetensors", pair())
    assert (
        main(
            ["sample", "miniworld", "--label", "lake", "--lora", str(tmp_path / text), "--out", str(tmp_path / "p.png")]
        )
        != 0
    )
    assert words in capsys.readouterr().err and not (tmp_path / "p.png").exists()
