"""Published ControlNets alone, put to a pipeline: the oracle's latents, from its own folder and from cldm files.

Tolerance as in test_diffusers_pipelines.py: 1e-4 of the largest latent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_diffusers as tiny
import tiny_parts
import torch
import yaml
from ldmkit_adapters.controlnet import ControlNet, ControlNetConfig
from ldmkit_checkpoints.compvis.controlnet import controlnet_compvis, controlnet_from_compvis
from ldmkit_checkpoints.compvis.controlnet_file import infer_controlnet
from ldmkit_checkpoints.diffusers.export import published
from ldmkit_conditioners.image import Hint

import ldmkit
from ldmkit.models.meta import on_meta
from ldmkit.models.weights import write_safetensors
from ldmkit.run.noise import Noise

HINT = np.random.default_rng(4).integers(0, 2, (32, 32, 3), dtype=np.uint8) * 255


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A text-to-image pipeline, a ControlNet, and both together, as the oracle saves them."""
    root = tmp_path_factory.mktemp("published")
    both = tiny.controlnet_pipeline()
    options: Any = {**tiny.stable_diffusion().components, "unet": both.unet, "vae": both.vae}
    diffusers.StableDiffusionPipeline(**options, requires_safety_checker=False).save_pretrained(root / "base")
    both.controlnet.save_pretrained(root / "control")
    both.save_pretrained(root / "both")
    return root / "base", root / "control", root / "both"


def cldm_file(adapter: ControlNet, path: Path, prefix: str) -> Path:
    tensors = published(adapter.state_dict(), controlnet_compvis(adapter.config))
    named = {prefix + key: tensor for key, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, named)
    else:
        torch.save({"state_dict": named} if prefix else named, path)
    return path


def test_with_adapter_is_the_oracles_pipeline(folders: tuple[Path, Path, Path]) -> None:
    base, control, both = folders
    theirs = diffusers.StableDiffusionControlNetPipeline.from_pretrained(both)
    theirs.set_progress_bar_config(disable=True)
    want = theirs(
        "the red house", image=torch.from_numpy(HINT).permute(2, 0, 1)[None].float() / 255, num_inference_steps=4,
        guidance_scale=4.0, latents=Noise([2], (4, 16, 16))(0, "start"), output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(base)
    plain = pipe({"text": "the red house"}, steps=4, guidance=4.0, seeds=[2]).latents
    edges = pipe.with_adapter("edges", ldmkit.load_adapter(control), {"hint": Hint({})})
    got = edges({"text": "the red house", "edges": HINT}, steps=4, guidance=4.0, seeds=[2]).latents
    scale = float(want.abs().max())
    assert float((got - want).abs().max()) < 1e-4 * scale < float((plain - want).abs().max())


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_cldm_files(folders: tuple[Path, Path, Path], tmp_path: Path, prefix: str, suffix: str) -> None:
    """Without a yaml the heads are taken to be those of Stable Diffusion 1."""
    adapter: Any = ldmkit.load_adapter(folders[1])
    assert adapter.config.unet.heads_at(1, 64) == 4  # the oracle's, which keys do not tell
    path = cldm_file(adapter, tmp_path / f"control{suffix}", prefix)
    again: Any = ldmkit.load_adapter(path)
    assert again.config.unet.heads_at(1, 64) == 8
    assert again.config.hint_widths == (8, 16) and again.state_dict().keys() == adapter.state_dict().keys()
    assert all(torch.equal(tensor, adapter.state_dict()[key]) for key, tensor in again.state_dict().items())
    with pytest.raises(ldmkit.SourceError) as caught:
        ldmkit.load(path)
    assert caught.value.code == "source.adapter-only" and "load_adapter" in str(caught.value)


def test_a_yaml_says_what_keys_do_not(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    adapter: Any = ldmkit.load_adapter(folders[1])
    params = {
        "in_channels": 4, "hint_channels": 3, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1,
        "attention_resolutions": [2], "use_spatial_transformer": True, "context_dim": 32, "num_heads": 4,
    }  # fmt: skip
    stage = {"target": "cldm.cldm.ControlNet", "params": params}
    whole = {"model": {"target": "cldm.cldm.ControlLDM", "params": {"control_stage_config": stage}}}
    (tmp_path / "control.yaml").write_text(yaml.safe_dump(whole))
    again: Any = ldmkit.load_adapter(cldm_file(adapter, tmp_path / "control.pth", "control_model."))
    assert again.config.unet.heads_at(1, 64) == 4


@pytest.mark.parametrize(("context", "linear"), [(768, False), (1024, True)])
def test_published_sizes_are_told_from_keys(context: int, linear: bool) -> None:
    """Stable Diffusion 1 and 2: 320 channels, levels 1, 2, 4, 4."""
    params: dict[str, Any] = {
        "in_channels": 4, "hint_channels": 3, "model_channels": 320, "channel_mult": [1, 2, 4, 4],
        "num_res_blocks": 2, "attention_resolutions": [4, 2, 1], "use_spatial_transformer": True,
        "transformer_depth": 1, "context_dim": context, "use_linear_in_transformer": linear,
        **({"num_head_channels": 64} if linear else {"num_heads": 8}),
    }  # fmt: skip
    config = controlnet_from_compvis(params)
    with on_meta():
        state = ControlNet(config).state_dict()
        shapes = {key: tuple(t.shape) for key, t in published(state, controlnet_compvis(config)).items()}
    assert infer_controlnet(shapes, "file") == config


def test_of_a_saved_pipeline(tmp_path: Path, class_pipe: ldmkit.Pipeline) -> None:
    options = {"hint_widths": (4,)}
    first, second = (ControlNet.from_denoiser(class_pipe.denoiser, **options) for _ in range(2))
    one = class_pipe.with_adapter("a", first, {"hint": Hint({})})
    folder = one.save(tmp_path / "one")
    loaded = ldmkit.load_adapter(folder, dtype="float64")
    assert loaded.dtype is torch.float64 and not next(loaded.parameters()).requires_grad
    two = one.with_adapter("b", second, {"hint": Hint({})}).save(tmp_path / "two")
    assert isinstance(ldmkit.load_adapter(two, name="b").config, ControlNetConfig)
    for name in (None, "c"):
        with pytest.raises(ldmkit.InputError, match=r"adapter-name.*'a', 'b'"):
            ldmkit.load_adapter(two, name=name)
    with pytest.raises(ldmkit.SourceError, match="no-adapter"):
        ldmkit.load_adapter(tiny_parts.class_pipeline().save(tmp_path / "none"))


def test_what_is_no_controlnet(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    adapter: Any = ldmkit.load_adapter(folders[1])
    tensors = published(adapter.state_dict(), controlnet_compvis(adapter.config))
    write_safetensors(tmp_path / "more.safetensors", {**tensors, "difference": torch.ones(1)})
    with pytest.raises(ldmkit.WeightsError, match="difference"):
        ldmkit.load_adapter(tmp_path / "more.safetensors")
    write_safetensors(tmp_path / "few.safetensors", {"input_hint_block.0.weight": torch.ones(16, 3, 3, 3)})
    with pytest.raises(ldmkit.SourceError, match="config-needed"):
        ldmkit.load_adapter(tmp_path / "few.safetensors")
    with pytest.raises(ldmkit.SourceError, match="codec-only"):
        ldmkit.load_adapter(folders[0] / "vae")


def test_a_folder_with_several_controlnets(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    theirs = diffusers.StableDiffusionControlNetPipeline.from_pretrained(folders[2])
    second = diffusers.ControlNetModel.from_pretrained(folders[1])
    with torch.no_grad():
        for parameter in second.controlnet_cond_embedding.parameters():
            parameter.mul_(-1.5)
    parts: dict[str, Any] = {**theirs.components, "controlnet": [theirs.controlnet, second]}
    several = diffusers.StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False)
    several.set_progress_bar_config(disable=True)
    several.save_pretrained(tmp_path)
    other = np.ascontiguousarray(HINT[::-1])
    pictures = [torch.from_numpy(h.copy()).permute(2, 0, 1)[None].float() / 255 for h in (HINT, other)]
    want = several(
        "the red house", image=pictures, num_inference_steps=4, guidance_scale=4.0,
        controlnet_conditioning_scale=[0.7, 0.4], latents=Noise([2], (4, 16, 16))(0, "start"), output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(tmp_path)
    assert list(pipe.adapters) == ["control-1", "control-2"]
    pipe = pipe.tuned("control-1", scale=0.7).tuned("control-2", scale=0.4)
    inputs = {"text": "the red house", "hint-1": HINT, "hint-2": other}
    got = pipe(inputs, steps=4, guidance=4.0, seeds=[2]).latents
    assert float((got - want).abs().max()) < 1e-4 * float(want.abs().max())
