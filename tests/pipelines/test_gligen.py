"""GLIGEN's folders as whole pipelines against the oracle library, and what a user does with them.

Tolerance: 1e-4 of the largest latent, in float32, as in test_diffusers_pipelines.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gligen_models as gm
import pytest
import tiny_diffusers as tiny
import torch
from test_diffusers_pipelines import NEGATIVE, PROMPT, close, start_noise
from torch import Tensor

import ldmkit
from ldmkit.errors import CompositionError, InputError, LdmkitError, SourceError

STEPS = 10


@pytest.fixture(scope="module")
def theirs() -> Any:
    return gm.gligen()


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(theirs, tmp_path_factory.mktemp("gligen"))


@pytest.fixture(scope="module")
def ours(folder: Path) -> ldmkit.Pipeline:
    return ldmkit.load(folder)


def drawn(
    pipe: Any, count: int, *, beta: float = 0.3, guidance: float = 4.0, seed: int = 3, size: Any = (16, 16)
) -> Tensor:
    phrases, boxes = gm.boxes(count)
    made: Tensor = pipe(
        PROMPT, negative_prompt=NEGATIVE if guidance > 1 else None, num_inference_steps=STEPS, guidance_scale=guidance,
        gligen_phrases=phrases, gligen_boxes=boxes, gligen_scheduled_sampling_beta=beta, height=2 * size[0],
        width=2 * size[1], latents=start_noise(seed, (4, *size)), output_type="latent",
    ).images  # fmt: skip
    return made


def asked(
    pipe: ldmkit.Pipeline, count: int, *, guidance: float = 4.0, seed: int = 3, size: Any = (16, 16), layout: Any = None
) -> Tensor:
    negative = {"text": NEGATIVE} if guidance > 1 else None
    inputs = {"text": PROMPT, "layout": gm.layout(count) if layout is None else layout}
    return pipe(
        inputs, negative=negative, steps=STEPS, guidance=guidance, seeds=[seed], size=(2 * size[0], 2 * size[1])
    ).latents


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("size", [(16, 16), (8, 20)])
def test_boxes_with_phrases(theirs: Any, ours: ldmkit.Pipeline, count: int, size: tuple[int, int]) -> None:
    close(asked(ours, count, size=size), drawn(theirs, count, size=size))


@pytest.mark.filterwarnings("ignore:the adapter 'gligen' has no effect")
@pytest.mark.parametrize("beta", [0.0, 0.25, 0.3, 0.55, 1.0])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_scheduled_sampling_and_guidance(theirs: Any, ours: ldmkit.Pipeline, beta: float, guidance: float) -> None:
    tuned = ours.tuned("gligen", end=beta)
    close(asked(tuned, 2, guidance=guidance), drawn(theirs, 2, beta=beta, guidance=guidance))


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize(
    "changes", [{}, {"use_linear_projection": True}, {"attention_head_dim": (2, 8), "transformer_layers_per_block": 2}]
)
def test_other_networks(tmp_path: Path, scheduler: str, changes: dict[str, Any]) -> None:
    theirs = gm.gligen(3, scheduler, **changes)
    close(asked(ldmkit.load(tiny.saved(theirs, tmp_path)), 3), drawn(theirs, 3))


def test_batches_with_different_counts(theirs: Any, ours: ldmkit.Pipeline) -> None:
    rows: list[dict[str, Any]] = [{"text": PROMPT, "layout": gm.layout(count)} for count in (1, 5, 30)]
    made = ours(rows, negative={"text": NEGATIVE}, steps=STEPS, guidance=4.0, seeds=[3, 4, 5]).latents
    for i, count in enumerate((1, 5, 30)):
        close(made[i : i + 1], drawn(theirs, count, seed=3 + i))


def test_no_boxes_are_learned_nulls_whether_said_or_left_out(ours: ldmkit.Pipeline) -> None:
    said = ours({"text": PROMPT, "layout": []}, steps=4, seeds=[3]).latents
    left_out = ours({"text": PROMPT}, steps=4, seeds=[3]).latents
    assert torch.equal(said, left_out)
    rows = [{"text": PROMPT}, {"text": PROMPT, "layout": gm.layout(2)}]
    together = ours(rows, steps=4, seeds=[3, 3]).latents
    close(together[:1], said)
    assert not torch.equal(said, ours.tuned("gligen", scale=0)({"text": PROMPT}, steps=4, seeds=[3]).latents)


def test_a_scale_of_0_is_the_plain_network(folder: Path, tmp_path: Path, ours: ldmkit.Pipeline) -> None:
    plain = tiny.stable_diffusion()
    state = {k: v for k, v in gm.gligen().unet.state_dict().items() if "fuser" not in k and "position_net" not in k}
    plain.unet.load_state_dict(state)
    want = ldmkit.load(tiny.saved(plain, tmp_path))({"text": PROMPT}, steps=4, seeds=[3]).latents
    off = ours.tuned("gligen", scale=0, end=1)
    assert torch.equal(off({"text": PROMPT}, steps=4, seeds=[3]).latents, want)
    with pytest.warns(UserWarning, match="no effect: its scale is 0"):
        assert torch.equal(off({"text": PROMPT, "layout": gm.layout(2)}, steps=4, seeds=[3]).latents, want)


def test_a_negative_layout_is_moved_away_from(ours: ldmkit.Pipeline) -> None:
    given: dict[str, Any] = {"text": PROMPT, "layout": gm.layout(2)}
    plain = ours(given, steps=4, guidance=4.0, seeds=[3]).latents
    away = ours(given, negative={"layout": gm.layout(3)}, steps=4, guidance=4.0, seeds=[3]).latents
    same = ours(given, negative={"layout": []}, steps=4, guidance=4.0, seeds=[3]).latents
    assert not torch.equal(plain, away)
    close(same, plain)


def test_plans_give_the_same_or_refuse(ours: ldmkit.Pipeline) -> None:
    close(asked(ours.planned("prepacked"), 2), asked(ours.planned("eager"), 2))
    with pytest.raises(CompositionError, match="plan-tapped"):
        asked(ours.planned("exported"), 2)


def test_saved_and_loaded(ours: ldmkit.Pipeline, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ldmkit.load(ours.tuned("gligen", end=0.5).save(tmp_path / "saved"))
    assert again.spec.adapters["gligen"].config["end"] == 0.5
    assert torch.equal(asked(again, 3), asked(ours.tuned("gligen", end=0.5), 3))


def test_recipe_and_replay(ours: ldmkit.Pipeline, folder: Path, tmp_path: Path) -> None:
    out = ours({"text": PROMPT, "layout": gm.layout(2)}, steps=4, seeds=[3])
    (path,) = out.save(tmp_path / "a.png")
    recipe = ldmkit.read_recipe(path)
    assert recipe["inputs"]["layout"]["objects"][1]["label"] == "a red house"
    again = ldmkit.replay(ldmkit.load(folder), recipe)
    assert torch.equal(again.images, out.images)


def test_with_a_lora_on_both_networks_at_once(ours: ldmkit.Pipeline, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    down, up = torch.randn(2, tiny.TEXT_WIDTH), torch.randn(tiny.TEXT_WIDTH, 2)
    name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, file := tmp_path / "te.safetensors")
    changed = ours.with_lora(file, 2.0)
    assert not torch.equal(asked(changed, 2), asked(ours, 2))
    close(asked(changed.fused(), 2), asked(changed, 2))


@pytest.mark.parametrize(
    "layout,code,words",
    [
        (gm.layout(30) + gm.layout(1), "too-many-boxes", "at most 30"),
        ([{"label": 3, "box": [0, 0, 1, 1]}], "phrase-type", "layout[0].label"),
        ([{"label": "cat", "box": [0, 0, 1, 1], "group_of": True}], "box-attributes", "group_of"),
        ([{"label": "cat", "box": [0.5, 0, 0.2, 1]}], "box-inverted", "layout[0]"),
        ([{"label": "cat", "box": [0, 0, 300, 200]}], "box-range", "normalised=false"),
        ({"objects": [], "crop": [0, 0, 0.5, 0.5]}, "layout-crop", "crop"),
        ([{"label": "c\0t", "box": [0, 0, 1, 1]}], "prompt-nul", "label"),
    ],
)
def test_what_is_no_layout(ours: ldmkit.Pipeline, layout: Any, code: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        ours({"text": PROMPT, "layout": layout}, steps=2)
    assert code in caught.value.code and words in str(caught.value)


def test_boxes_in_pixels_and_other_formats(ours: ldmkit.Pipeline) -> None:
    forms: list[dict[str, Any]] = [
        {"box": [0.25, 0.5, 0.75, 1.0]},
        {"box": [0.25, 0.5, 0.5, 0.5], "format": "xywh"},
        {"box": [16, 32, 48, 64], "normalised": False, "size": [64, 64]},
    ]
    made = [asked(ours, 0, layout=[{"label": "cat", **form}]) for form in forms]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def edited(folder: Path, target: Path, file: str, **changes: Any) -> Path:
    import shutil

    shutil.copytree(folder, target)
    config = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**config, **changes}))
    return target


@pytest.mark.parametrize(
    "file,changes,words",
    [
        ("unet/config.json", {"attention_type": "gated-text-image"}, "gated-text-image"),
        ("unet/config.json", {"attention_type": "default"}, "attention_type 'default'"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "StableDiffusionGLIGENPipeline"),
        ("model_index.json", {"_class_name": "StableDiffusionGLIGENTextImagePipeline"}, "does not support"),
        ("model_index.json", {"text_encoder": [None, None], "tokenizer": [None, None]}, "text encoder"),
    ],
)
def test_variants_are_refused_by_name(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        ldmkit.load(edited(folder, tmp_path / "other", file, **changes))


def test_a_gate_that_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    target = edited(folder, tmp_path / "less", "unet/config.json")
    file = target / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    gone = next(key for key in tensors if key.endswith("fuser.alpha_attn"))
    save_file({key: tensor for key, tensor in tensors.items() if key != gone}, file)
    with pytest.raises(LdmkitError, match=r"fuser\.alpha_attn"):
        ldmkit.load(target)


@pytest.mark.parametrize(("phrase", "words"), [("(a ball:1.3)", "weights words in other"), ("  ", "an empty phrase")])
def test_phrases_that_are_letters_or_nothing(ours: ldmkit.Pipeline, phrase: str, words: str) -> None:
    """What is told of texts is told of the phrases of boxes too."""
    with pytest.warns(match=words):
        asked(ours, 1, layout=[{"label": phrase, "box": [0.1, 0.1, 0.5, 0.5]}])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asked(ours, 1)
    assert not [one for one in caught if words in str(one.message)]
