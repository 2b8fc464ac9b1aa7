"""Control-LoRA: the ControlNet that the base's weights plus the file's products are, put together here by arithmetic.

Whole runs against diffusers' pipeline with that ControlNet: 1e-4 of the largest latent, float32 some steps on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from control_runs import TEXTS, as_tensor, far, hint, piped, start, tiny
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_checkpoints.compvis.controlnet import controlnet_compvis
from ldmkit_checkpoints.diffusers.controlnet import controlnet_diffusers
from ldmkit_checkpoints.diffusers.export import published

import ldmkit
from ldmkit.models.weights import write_safetensors

DRAWN: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [2], "size": (32, 32)}


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.1


def written(pipe: ldmkit.Pipeline) -> tuple[dict[str, torch.Tensor], ControlNet]:
    """A file for a pipeline's U-Net, and the ControlNet that it stands for.

    Every second weight is changed by a product of rank 3, its bias and every norm are in the file, and the rest is the
    U-Net's own.
    """
    whole = ControlNet.from_denoiser(pipe.denoiser, hint_widths=(8, 16)).double()
    keymap, own = controlnet_compvis(whole.config), whole.state_dict()
    file: dict[str, torch.Tensor] = {"lora_controlnet": torch.zeros(0)}
    for number, (native, entry) in enumerate(sorted(keymap.items())):
        (key,) = entry.keys
        value = entry.write(own[native])[0]
        if native.startswith(("hint.", "zero")) or value.ndim == 1:
            value = file[key] = value + random(*value.shape, seed=number, dtype=torch.float64)
        elif number % 2:
            stem, columns = key.removesuffix(".weight"), value[0].numel()
            up, down = random(value.shape[0], 3, seed=number), random(3, columns, seed=number + 1)
            one = (1, 1) if value.ndim == 4 else ()
            file[f"{stem}.up"], file[f"{stem}.down"] = up.reshape(-1, 3, *one), down.reshape(3, *value.shape[1:])
            value = value + (up.double() @ down.double()).reshape(value.shape)
        own[native] = entry.read(value)
    whole.load_state_dict(own)
    return {key: tensor.float().contiguous() for key, tensor in file.items()}, whole


@pytest.fixture(scope="module", params=["sd", "xl"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path, Any]:
    root = tmp_path_factory.mktemp("control-lora")
    base = tiny.stable_diffusion_xl() if request.param == "xl" else tiny.stable_diffusion()
    tiny.saved(base, root / "base")
    file, whole = written(ldmkit.load(root / "base", dtype="float64"))
    write_safetensors(root / "canny.safetensors", file)
    return base, root / "base", root / "canny.safetensors", whole


def test_a_whole_run(made: tuple[Any, Path, Path, Any], tmp_path: Path) -> None:
    base, folder, file, whole = made
    theirs = diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16))
    theirs.load_state_dict(published(whole.float().state_dict(), controlnet_diffusers(whole.config)))
    infix = "XL" if "XL" in type(base).__name__ else ""
    run = piped(f"StableDiffusion{infix}ControlNetPipeline", base, controlnet=theirs)
    want = run(
        TEXTS[0], image=as_tensor(hint()), num_inference_steps=3, guidance_scale=4.0, controlnet_conditioning_scale=0.8,
        latents=start([2], 32, 32), output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(folder)
    plain = pipe({"text": TEXTS[0]}, **DRAWN).latents
    edges = pipe.with_adapter_file(file, scale=0.8)
    inputs = {"text": TEXTS[0], "hint": hint()}
    got = edges(inputs, **DRAWN).latents
    assert far(got, want) <= 1e-4 < far(plain, want)
    assert torch.equal(pipe({"text": TEXTS[0]}, **DRAWN).latents, plain)
    assert torch.equal(ldmkit.load(edges.save(tmp_path / "saved"))(inputs, **DRAWN).latents, got)


def test_its_weights(made: tuple[Any, Path, Path, Any]) -> None:
    """In float64, to the rounding of the file; the U-Net's own stay its own."""
    pipe = ldmkit.load(made[1], dtype="float64")
    before = {key: tensor.clone() for key, tensor in pipe.denoiser.state_dict().items()}
    control = pipe.with_adapter_file(made[2]).adapters["canny"]
    for key, tensor in made[3].double().state_dict().items():
        assert far(control.state_dict()[key], tensor) <= 1e-6, key
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in pipe.denoiser.state_dict().items())


def test_without_a_pipeline(made: tuple[Any, Path, Path, Any]) -> None:
    for load in (ldmkit.load_adapter, ldmkit.load):
        with pytest.raises(ldmkit.SourceError, match=r"Control-LoRA.*with_adapter_file"):
            load(made[2])


def test_what_does_not_fit(made: tuple[Any, Path, Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    _, folder, file, _ = made
    pipe, tensors = ldmkit.load(folder), load_file(file)
    up = next(key for key in tensors if key.endswith(".up"))
    wide = tiny.stable_diffusion(seed=1, block_out_channels=(64, 64))
    other = ldmkit.load(tiny.saved(wide, tmp_path / "wide"))
    with pytest.raises(ldmkit.SourceError, match=r"other-base.*\[.*\].*\[.*\]"):
        other.with_adapter_file(file)
    bad = {
        "half-a-pair": {key: tensor for key, tensor in tensors.items() if key != up},
        "other-base.*'lora_unet_x'": {**tensors, "lora_unet_x": torch.ones(1)},
        "other-base.*input_hint_block": {k: v for k, v in tensors.items() if not k.startswith("input_hint_block")},
        "missing.*zero_convs": {k: v for k, v in tensors.items() if not k.startswith("zero_convs.1.")},
        "not-finite": {**tensors, up: torch.full_like(tensors[up], torch.nan)},
    }
    for words, changed in bad.items():
        write_safetensors(tmp_path / "bad.safetensors", changed)
        with pytest.raises(ldmkit.LdmkitError, match=words):
            pipe.with_adapter_file(tmp_path / "bad.safetensors")
    assert not any(port.taps for one in (pipe, other) for port in one.denoiser.ports.values())
    with pytest.raises(ldmkit.SourceError, match=r"other-base.*placed"):
        pipe.placed({"denoiser": "streamed"}).with_adapter_file(file)
