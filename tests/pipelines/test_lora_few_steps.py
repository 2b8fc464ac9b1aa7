"""Files that are made for few steps: what they say becomes locked defaults, what their names suggest is advice."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import diffusers
import lora_files
import pytest
import tiny_diffusers as tiny
import torch
from test_diffusers_pipelines import PROMPT, close, start_noise

import ldmkit
from ldmkit.cli import main
from ldmkit.errors import DrawingWarning, SourceError
from ldmkit.replaying import replay, with_updates

UNET = {"r": 4, "lora_alpha": 4, "target_modules": lora_files.ATTENTION}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few")
    base = tiny.stable_diffusion()
    tiny.saved(base, root / "base")
    lora_files.by_diffusers(base, root / "plain", UNET)
    return root


@pytest.fixture(scope="module")
def pipe(root: Path) -> ldmkit.Pipeline:
    return ldmkit.load(root / "base")


def file_of(root: Path, target: Path, metadata: dict[str, str] | None = None, **beside: str) -> Path:
    """The file with other metadata, in a folder of its own, with further files."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    save_file(load_file(root / "plain" / "pytorch_lora_weights.safetensors"), target / "a.safetensors", metadata)
    for name, text in beside.items():
        (target / name.replace("_md", ".md").replace("_json", ".json")).write_text(text)
    return target / "a.safetensors"


CARD = "---\ntags:\n- {tag}\n- lora\ninference:\n  parameters:\n    num_inference_steps: {steps}\n---\n# Title\n"


def test_a_card_says_lcm_and_the_run_is_diffusers_own(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    file = file_of(root, tmp_path / "x", README_md="---\ntags: [lcm-lora, text-to-image]\n---\n")
    with pytest.warns(DrawingWarning, match=r"by its tags: sampler lcm, grid trailing, guidance none, steps 4"):
        mine = pipe.with_lora(file)
    assert (mine.defaults.steps, mine.defaults.locked) == (4, ("sampler", "grid", "guidance"))
    theirs: Any = diffusers.StableDiffusionPipeline.from_pretrained(root / "base")
    theirs.scheduler = diffusers.LCMScheduler.from_config(theirs.scheduler.config)
    theirs.load_lora_weights(str(file.parent), weight_name=file.name)
    theirs.set_progress_bar_config(disable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = mine({"text": PROMPT}, seeds=[3], steps=1)  # one step draws no noise
    want = theirs(PROMPT, num_inference_steps=1, guidance_scale=1, latents=start_noise(3), output_type="latent").images
    close(out.latents, want)
    recipe = mine({"text": PROMPT}, seeds=[3]).recipes[0]
    assert (recipe["sampler"]["type"], recipe["steps"], recipe["guidance"]["type"]) == ("lcm", 4, "none")


@pytest.mark.parametrize(
    ("tag", "sampler", "grid", "steps"),
    [
        ("tcd", "tcd", "trailing", 4),
        ("hyper-sd", "ddim", "trailing", 8),
        ("sdxl-lightning", "euler", "trailing", 8),
        ("sdxl-turbo", "euler-ancestral", "trailing", 8),
        ("dmd2", "lcm", "trailing", 8),
    ],
)
def test_methods(
    root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, tag: str, sampler: str, grid: str, steps: int
) -> None:
    card = CARD.format(tag=tag, steps=steps)
    with pytest.warns(DrawingWarning, match="made for few steps, by its tags"):
        mine = pipe.with_lora(file_of(root, tmp_path / "x", README_md=card))
    own = mine.defaults
    assert (own.sampler.type, own.grid.type, own.guidance.type, own.steps) == (sampler, grid, "none", steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine({"text": PROMPT})
    with pytest.warns(DrawingWarning, match=f"steps: the model was distilled for {steps}"):
        mine({"text": PROMPT}, steps=3)
    with pytest.warns(DrawingWarning, match="guidance: the model was distilled for none"):
        mine({"text": PROMPT}, guidance=3.0)


def test_dmd2_visits_its_timesteps(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    with pytest.warns(DrawingWarning):
        mine = pipe.with_lora(file_of(root, tmp_path / "x", {"modelspec.tags": "DMD2, lora"}))
    prepared = mine.prepare({"text": PROMPT})
    times = [round(float(mine.process.time(sigma))) for sigma in prepared.sigmas[:-1]]
    assert times == [999, 749, 499, 249]


def test_a_header_may_say_it_in_full(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    said = {"sampler": {"type": "tcd", "config": {"gamma": 0.5}}, "steps": 2, "guidance": {"type": "none"}}
    file = file_of(root, tmp_path / "x", {"ldmkit.defaults": json.dumps(said)})
    with pytest.warns(DrawingWarning, match="by its header: sampler tcd, guidance none, steps 2"):
        mine = pipe.with_lora(file)
    assert mine.defaults.locked == ("sampler", "guidance", "steps") and mine.defaults.sampler.config["gamma"] == 0.5
    assert mine.defaults.grid == pipe.defaults.grid
    for bad in ("{", "[]", '{"size": [1, 2]}', '{"steps": 0}', '{"sampler": 3}', '{"steps": 4, "locked": ["size"]}'):
        target = file_of(root, tmp_path / f"bad{abs(hash(bad))}", {"ldmkit.defaults": bad})
        with pytest.raises(SourceError, match=r"metadata.*ldmkit\.defaults"):
            pipe.with_lora(target)


def test_a_scheduler_beside(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    config = {"_class_name": "TCDScheduler", "original_inference_steps": 40}
    file = file_of(root, tmp_path / "x", scheduler_config_json=json.dumps(config))
    with pytest.warns(DrawingWarning, match=r"by scheduler_config\.json: sampler tcd"):
        mine = pipe.with_lora(file)
    assert mine.defaults.grid.config["out_of"] == 40
    shutil.copy(file, file.with_name("b.safetensors"))  # whose are they now?
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pipe.with_lora(file).defaults == pipe.defaults


@pytest.mark.parametrize(
    ("name", "metadata", "advice"),
    [
        ("lcm-lora-sdv1-5", {}, "--sampler lcm .*--guidance none --steps 4"),
        ("Hyper-SD15-8steps-lora", {}, "--sampler ddim --grid trailing.* --steps 8"),
        ("sdxl_lightning_2step_lora", {}, "--sampler euler --grid trailing --guidance none --steps 2"),
        ("a", {"modelspec.title": "My LCM thing"}, "--sampler lcm --grid trailing:out_of=50"),
        ("a", {"ss_output_name": "dmd2_sdxl_4step"}, "--sampler lcm --grid trailing --guidance none --steps 4"),
    ],
)
def test_names_are_advice_alone(
    root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, name: str, metadata: dict[str, str], advice: str
) -> None:
    file = file_of(root, tmp_path / "x", metadata or None)
    file = file.rename(file.with_name(f"{name}.safetensors"))
    with pytest.warns(DrawingWarning, match=f"which the file does not say: nothing is changed.*{advice}"):
        mine = pipe.with_lora(file)
    assert mine.defaults == pipe.defaults


@pytest.mark.parametrize("name", ["hyperrealism", "calcmap", "turbofanblade", "ink"])
def test_other_names_are_not(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, name: str) -> None:
    file = file_of(root, tmp_path / "x", {"modelspec.tags": "anime, style"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.with_lora(file.rename(file.with_name(f"{name}.safetensors")))


@pytest.mark.filterwarnings("ignore::ldmkit.errors.DrawingWarning")
def test_kept_fused_saved_replayed(
    root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(root, tmp_path / "x", README_md=CARD.format(tag="lcm", steps=3))
    mine = pipe.with_lora(file)
    assert mine.fused().defaults == mine.defaults and mine.fused().unfused().defaults == mine.defaults
    back = ldmkit.load(mine.save(tmp_path / "saved"))
    assert (back.defaults.steps, back.defaults.locked) == (3, mine.defaults.locked)
    assert ldmkit.load(mine.fused().save(tmp_path / "fused")).defaults.sampler.type == "lcm"
    assert pipe.defaults.locked is None  # the pipeline before is as it was
    assert (
        main(["sample", str(root / "base"), "--text", PROMPT, "--lora", str(file), "-o", str(tmp_path / "a.png")]) == 0
    )
    assert "made for few steps" in capsys.readouterr().err
    recipe = ldmkit.read_recipe(tmp_path / "a.png")
    assert (recipe["steps"], recipe["sampler"]["type"]) == (3, "lcm")
    again = replay(with_updates(ldmkit.load(root / "base"), recipe), recipe, trust=True)
    assert torch.equal(again.latents, mine({"text": PROMPT}).latents)


def test_two_that_ask_for_different_things(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    one = file_of(root, tmp_path / "x", README_md=CARD.format(tag="lcm", steps=4))
    other = file_of(root, tmp_path / "y", README_md=CARD.format(tag="tcd", steps=8))
    with pytest.warns(DrawingWarning, match=r"sampler was locked to .*lcm.* now to .*tcd"):
        both = pipe.with_lora(one).with_lora(other)
    assert (both.defaults.sampler.type, both.defaults.steps) == ("tcd", 8)


def test_another_process_is_left_alone(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path) -> None:
    from ldmkit_processes.discrete import Discrete

    cosine = pipe.with_(process=Discrete(schedule="cosine"))
    file = file_of(root, tmp_path / "x", {"modelspec.tags": "tcd"})
    with pytest.warns(DrawingWarning, match="process does not have.*nothing is changed"):
        assert cosine.with_lora(file).defaults == cosine.defaults


@pytest.mark.parametrize(
    "card", ["---\ntags: [lcm\n---\n", "---\n- 3\n---\n", "# no front matter\n", "---\ntags: 3\n---\n"]
)
def test_cards_that_say_nothing(root: Path, pipe: ldmkit.Pipeline, tmp_path: Path, card: str) -> None:
    file = file_of(root, tmp_path / "x", README_md=card)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert pipe.with_lora(file).defaults == pipe.defaults
    assert all("README.md cannot be read" in str(one.message) for one in told) and len(told) == ("[lcm\n" in card)
