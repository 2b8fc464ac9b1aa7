"""ControlNet Union in whole runs, against diffusers' pipeline for SDXL.

Tolerance 1e-4 of the largest latent, as for the pipelines without it: float32, another order of sums, some steps on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from control_runs import TEXTS, as_tensor, far, hint, piped, start, stirred, tiny

import ldmkit


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    root = tmp_path_factory.mktemp("union")
    base = tiny.stable_diffusion_xl()
    tiny.saved(base, root / "base")
    torch.manual_seed(1)
    plain = dict(diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16)).config)
    for key in ("mid_block_type",):
        plain.pop(key)
    own = {"num_trans_channel": 32, "num_proj_channel": 32, "num_trans_head": 4}
    union = stirred(diffusers.ControlNetUnionModel(**plain, **own), std=0.1)
    union.save_pretrained(root / "union")
    return base, union, root


@pytest.mark.parametrize("guess", [False, True])
@pytest.mark.parametrize("types", [["canny"], ["depth", "canny"], ["openpose", "segmentation", "normal"]])
def test_types(folders: tuple[Any, Any, Path], types: list[str], guess: bool) -> None:
    """The oracle's guess mode runs without guidance only."""
    guidance = 1.0 if guess else 4.0
    base, union, root = folders
    known = ["openpose", "depth", "scribble", "canny", "normal", "segmentation"]
    pictures = {name: hint(seed=i) for i, name in enumerate(types)}
    run = piped("StableDiffusionXLControlNetUnionPipeline", base, controlnet=union)
    want = run(
        TEXTS[0], control_image=[as_tensor(p) for p in pictures.values()],
        control_mode=[known.index(name) for name in types], num_inference_steps=3, guidance_scale=guidance,
        controlnet_conditioning_scale=0.8, guess_mode=guess, latents=start([2], 32, 32), output_type="latent",
    ).images  # fmt: skip
    options: dict[str, Any] = {"guess": True, "guess_weights": "logspace"} if guess else {}
    pipe = ldmkit.load(root / "base").with_adapter_file(root / "union", scale=0.8, **options)
    drawn: dict[str, Any] = {"steps": 3, "guidance": guidance, "seeds": [2]}
    got = pipe({"text": TEXTS[0], **pictures}, **drawn).latents
    assert far(got, want) <= 1e-4
    plain = pipe({"text": TEXTS[0]}, **drawn).latents
    assert torch.equal(plain, ldmkit.load(root / "base")({"text": TEXTS[0]}, **drawn).latents)
    assert far(plain, want) > 1e-3


def test_window_saving_and_names(folders: tuple[Any, Any, Path], tmp_path: Path) -> None:
    base, union, root = folders
    run = piped("StableDiffusionXLControlNetUnionPipeline", base, controlnet=union)
    want = run(
        TEXTS[0], control_image=[as_tensor(hint())], control_mode=[3], num_inference_steps=5, guidance_scale=4.0,
        control_guidance_start=0.2, control_guidance_end=0.7, latents=start([2], 32, 32), output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(root / "base").with_adapter_file(root / "union", start=0.2, end=0.7)
    drawn: dict[str, Any] = {"steps": 5, "guidance": 4.0, "seeds": [2]}
    inputs = {"text": TEXTS[0], "canny": hint()}
    got = pipe(inputs, **drawn).latents
    assert far(got, want) <= 1e-4
    assert torch.equal(ldmkit.load(pipe.save(tmp_path / "saved"))(inputs, **drawn).latents, got)
    with pytest.raises(ldmkit.InputError, match=r"unknown-input.*'cany'.*did you mean 'canny'"):
        pipe({"text": TEXTS[0], "cany": hint()}, **drawn)
    with pytest.raises(ldmkit.SpecError, match=r"'edges'.*canny"):
        pipe.tuned("union", scales={"edges": 0.5})
    with pytest.raises(ldmkit.InputError, match="size"):
        pipe({"text": TEXTS[0], "canny": hint(), "depth": hint(24, 24)}, **drawn)
    packed = pipe.planned("prepacked")(inputs, **drawn).latents
    assert far(packed, got) <= 1e-4


def test_pictures_of_a_batch_do_not_see_one_another(folders: tuple[Any, Any, Path]) -> None:
    """Those of diffusers do: it lets them attend to one another."""
    pipe = ldmkit.load(folders[2] / "base").with_adapter_file(folders[2] / "union")
    inputs = [{"text": TEXTS[0], "canny": hint(seed=1)}, {"text": TEXTS[1], "depth": hint(seed=2)}, {"text": TEXTS[1]}]
    drawn: dict[str, Any] = {"steps": 2, "guidance": 4.0}
    together = pipe(inputs, seeds=[1, 2, 3], **drawn).latents
    for i, one in enumerate(inputs):
        assert far(pipe(one, seeds=[i + 1], **drawn).latents, together[i : i + 1]) <= 1e-4
