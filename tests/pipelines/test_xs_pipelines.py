"""ControlNet-XS in whole runs, against diffusers' pipelines.

Tolerance 1e-4 of the largest latent, as for the pipelines without it: float32, another order of sums, some steps on.
The U-Nets have the epsilon that the oracle's copy of them has; see tests/parity/test_controlnet_xs.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from control_runs import TEXTS, as_tensor, far, hint, piped, start, stirred, tiny

import ldmkit

SD: dict[str, Any] = {"layers_per_block": 2, "norm_eps": 1e-6, "use_linear_projection": True}


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    return made(tiny.stable_diffusion(**SD), tmp_path_factory.mktemp("xs"), learn_time_embedding=True)


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    base = tiny.stable_diffusion_xl(layers_per_block=2, norm_eps=1e-6)
    return made(base, tmp_path_factory.mktemp("xs-xl"))


def made(base: Any, root: Path, **options: Any) -> tuple[Any, Any, Path]:
    base.save_pretrained(root / "base")
    torch.manual_seed(1)
    hints = {"conditioning_embedding_out_channels": (8, 16)}
    adapter = stirred(diffusers.ControlNetXSAdapter.from_unet(base.unet, size_ratio=0.25, **hints, **options))
    adapter.save_pretrained(root / "xs")
    return base, adapter, root


@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("name", ["sd", "xl"])
def test_pipelines(name: str, size: tuple[int, int], guidance: float, request: pytest.FixtureRequest) -> None:
    base, adapter, root = request.getfixturevalue(name)
    infix = "XL" if name == "xl" else ""
    run = piped(f"StableDiffusion{infix}ControlNetXSPipeline", base, controlnet=adapter)
    want = run(
        TEXTS, image=as_tensor(hint(*size)), num_inference_steps=3, guidance_scale=guidance,
        height=size[0], width=size[1], controlnet_conditioning_scale=0.8, control_guidance_end=0.7,
        latents=start([2, 5], *size), output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(root / "base")
    drawn: dict[str, Any] = {"steps": 3, "guidance": guidance, "seeds": [2, 5], "size": size}
    plain = pipe([{"text": text} for text in TEXTS], **drawn).latents
    edges = pipe.with_adapter_file(root / "xs", scale=0.8, end=0.7)
    got = edges([{"text": text, "hint": hint(*size)} for text in TEXTS], **drawn).latents
    assert far(got, want) <= 1e-4 < far(plain, want)
    del edges
    assert torch.equal(pipe([{"text": text} for text in TEXTS], **drawn).latents, plain)
    assert not any(port.taps for port in pipe.denoiser.ports.values())


def test_saved_combined_and_planned(sd: tuple[Any, Any, Path], tmp_path: Path) -> None:
    """Beside a ControlNet and a T2I-Adapter, of which it reads what they add; under the packed plan."""
    base, _, root = sd
    control = stirred(diffusers.ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 16)))
    control.save_pretrained(tmp_path / "control")
    pipe = ldmkit.load(root / "base").with_adapter_file(root / "xs").with_adapter_file(tmp_path / "control")
    assert list(pipe.adapters) == ["xs", "control"] and {"hint", "hint-2"} <= set(pipe.inputs)
    inputs = {"text": TEXTS[0], "hint": hint(seed=1), "hint-2": hint(seed=2)}
    drawn: dict[str, Any] = {"steps": 2, "guidance": 4.0, "seeds": [2], "size": (32, 32)}
    got = pipe(inputs, **drawn).latents
    for name in ("xs", "control"):
        assert far(pipe.tuned(name, scale=0)(inputs, **drawn).latents, got) > 1e-3
    assert far(pipe.planned("prepacked")(inputs, **drawn).latents, got) <= 1e-4
    assert torch.equal(ldmkit.load(pipe.save(tmp_path / "saved"))(inputs, **drawn).latents, got)
    twice = ldmkit.load(root / "base").with_adapter_file(root / "xs").with_adapter_file(root / "xs", scale=0.3)
    assert far(twice(inputs, **drawn).latents, got) > 1e-3
    with pytest.raises(ldmkit.CompositionError, match=r"plan-tapped"):
        pipe.planned("exported")(inputs, **drawn)


def test_what_does_not_fit(sd: tuple[Any, Any, Path], xl: tuple[Any, Any, Path], tmp_path: Path) -> None:
    pipe = ldmkit.load(sd[2] / "base")
    with pytest.raises(ldmkit.CompositionError, match=r"other-network.*dim 64.*dim 32"):
        pipe.with_adapter_file(xl[2] / "xs")
    thin = ldmkit.load(tiny.saved(tiny.stable_diffusion(), tmp_path / "thin"))  # one block a level
    with pytest.raises(ldmkit.CompositionError, match=r"unknown-port.*down\.0\.1"):
        thin.with_adapter_file(sd[2] / "xs")
    control = pipe.with_adapter_file(sd[2] / "xs")
    with pytest.raises(ldmkit.InputError, match="size"):
        control({"text": "a", "hint": hint(16, 16)}, steps=2, size=(32, 32))
    file = sd[2] / "xs" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ldmkit.SourceError, match=r"ControlNet-XS.*folder"):
        (tmp_path / "alone.safetensors").write_bytes(file.read_bytes())
        ldmkit.load_adapter(tmp_path / "alone.safetensors")
    assert ldmkit.load_adapter(file).config == ldmkit.load_adapter(sd[2] / "xs").config
