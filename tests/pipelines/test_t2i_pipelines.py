"""T2I-Adapters in whole runs: diffusers' pipelines with the same random weights.

Tolerance 1e-4 of the largest latent, as for the pipelines without them: float32, another order of sums, some steps on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from control_runs import TEXTS, as_tensor, far, grey, hint, piped, start, tiny
from ldmkit_adapters.controlnet import ControlNet
from ldmkit_conditioners.image import Hint

import ldmkit

SD: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}


def adapter(seed: int, **options: Any) -> Any:
    torch.manual_seed(seed)
    return diffusers.T2IAdapter(**{"channels": [32, 64, 64], "downscale_factor": 2, **options}).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    theirs = tiny.stable_diffusion(**SD)
    return theirs, tiny.saved(theirs, tmp_path_factory.mktemp("t2i") / "base")


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    theirs = tiny.stable_diffusion_xl()
    return theirs, tiny.saved(theirs, tmp_path_factory.mktemp("t2i-xl") / "base")


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("options", [{}, {"in_channels": 1}, {"adapter_type": "light_adapter", "channels": [32, 64]}])
def test_one(base: tuple[Any, Path], options: dict[str, Any], size: tuple[int, int], tmp_path: Path) -> None:
    theirs = adapter(3, **options)
    theirs.save_pretrained(tmp_path)
    channels = options.get("in_channels", 3)
    picture = grey(*size)
    run = piped("StableDiffusionAdapterPipeline", base[0], adapter=theirs)
    want = run(
        TEXTS, image=as_tensor(picture, channels).expand(2, -1, -1, -1), num_inference_steps=4, guidance_scale=4.0,
        height=size[0], width=size[1], adapter_conditioning_scale=0.8, latents=start([2, 5], *size),
        output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(base[1])
    drawn = {"steps": 4, "guidance": 4.0, "seeds": [2, 5], "size": size}
    plain = pipe([{"text": text} for text in TEXTS], **drawn).latents
    sketch = pipe.with_adapter("sketch", ldmkit.load_adapter(tmp_path), {"hint": Hint({"channels": channels})})
    inputs = [{"text": text, "sketch": picture} for text in TEXTS]
    got = sketch.tuned("sketch", scale=0.8)(inputs, **drawn).latents
    assert far(got, want) <= 1e-4 < far(plain, want)
    attached = pipe.with_adapter_file(tmp_path, name="sketch", scale=0.8)
    hints = [{"text": text, "hint": picture} for text in TEXTS]
    assert torch.equal(attached(hints, **drawn).latents, got)
    assert torch.equal(pipe([{"text": text} for text in TEXTS], **drawn).latents, plain)


def test_several(base: tuple[Any, Path], tmp_path: Path) -> None:
    """diffusers' MultiAdapter, and without CFG."""
    pair = [adapter(3), adapter(4, num_res_blocks=1)]
    pictures = [hint(seed=1), hint(seed=2)]
    run = piped("StableDiffusionAdapterPipeline", base[0], adapter=diffusers.MultiAdapter(pair))
    want = run(
        TEXTS[0], image=[as_tensor(p) for p in pictures], num_inference_steps=4, guidance_scale=1.0,
        height=32, width=32, adapter_conditioning_scale=[0.7, -0.4], latents=start([2], 32, 32), output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(base[1])
    for name, one, scale in (("a", pair[0], 0.7), ("b", pair[1], -0.4)):
        one.save_pretrained(tmp_path / name)
        pipe = pipe.with_adapter(name, ldmkit.load_adapter(tmp_path / name), {"hint": Hint()}).tuned(name, scale=scale)
    inputs = {"text": TEXTS[0], "a": pictures[0], "b": pictures[1]}
    drawn: dict[str, Any] = {"steps": 4, "guidance": 1.0, "seeds": [2]}
    got = pipe(inputs, **drawn).latents
    assert far(got, want) <= 1e-4
    again = ldmkit.load(pipe.save(tmp_path / "both"))
    assert torch.equal(again(inputs, **drawn).latents, got)


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.3])
def test_xl_and_its_window(xl: tuple[Any, Path], factor: float, tmp_path: Path) -> None:
    """`adapter_conditioning_factor` is `end`: 0.5 and 0.3 of five steps are the first two, and the first one."""
    theirs = adapter(3, adapter_type="full_adapter_xl", downscale_factor=4, channels=[32, 64])
    theirs.save_pretrained(tmp_path)
    run = piped("StableDiffusionXLAdapterPipeline", xl[0], adapter=theirs)
    want = run(
        TEXTS[0], image=as_tensor(hint()), num_inference_steps=5, guidance_scale=4.0, height=32, width=32,
        adapter_conditioning_factor=factor, latents=start([2], 32, 32), output_type="latent",
    ).images  # fmt: skip
    pipe = ldmkit.load(xl[1]).with_adapter("sketch", ldmkit.load_adapter(tmp_path), {"hint": Hint()})
    drawn: dict[str, Any] = {"steps": 5, "guidance": 4.0, "seeds": [2], "size": (32, 32)}
    inputs = {"text": TEXTS[0], "sketch": hint()}
    assert far(pipe.tuned("sketch", end=factor)(inputs, **drawn).latents, want) <= 1e-4
    if factor < 1:
        assert far(pipe(inputs, **drawn).latents, want) > 1e-3


def test_with_a_controlnet(base: tuple[Any, Path], tmp_path: Path) -> None:
    """Two kinds at once, in either order; the features are computed once a run."""
    adapter(3).save_pretrained(tmp_path)
    sketch: Any = ldmkit.load_adapter(tmp_path)
    pipe = ldmkit.load(base[1])
    control: Any = ControlNet.from_denoiser(pipe.denoiser, hint_widths=(4, 8))
    with torch.no_grad():
        for parameter in control.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    calls = []
    sketch.register_forward_hook(lambda *_: calls.append(1))
    both = [
        pipe.with_adapter("s", sketch, {"hint": Hint()}).with_adapter("c", control, {"hint": Hint()}),
        pipe.with_adapter("c", control, {"hint": Hint()}).with_adapter("s", sketch, {"hint": Hint()}),
    ]
    inputs = {"text": TEXTS[0], "s": hint(seed=1), "c": hint(seed=2)}
    drawn: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [2]}
    got = [one(inputs, **drawn).latents for one in both]
    assert torch.equal(*got) and len(calls) == 2
    for name in ("s", "c"):
        assert far(both[0].tuned(name, scale=0)(inputs, **drawn).latents, got[0]) > 1e-3
    packed = both[0].planned("prepacked")(inputs, **drawn).latents
    assert far(packed, got[0]) <= 1e-4


def test_what_does_not_fit(base: tuple[Any, Path], xl: tuple[Any, Path], tmp_path: Path) -> None:
    adapter(3).save_pretrained(tmp_path / "a")
    adapter(3, channels=[32, 32, 64]).save_pretrained(tmp_path / "b")
    adapter(3, channels=[32, 64, 64, 64]).save_pretrained(tmp_path / "c")
    adapter(3, downscale_factor=8).save_pretrained(tmp_path / "d")
    adapter(3, in_channels=1).save_pretrained(tmp_path / "e")
    pipe = ldmkit.load(base[1])
    ports = {name: port.taps for name, port in pipe.denoiser.ports.items()}
    sketch = ldmkit.load_adapter(tmp_path / "a")
    with pytest.raises(ldmkit.CompositionError, match=r"other-network.*32 channels at port 'down.1'.*has 64"):
        pipe.with_adapter("s", ldmkit.load_adapter(tmp_path / "b"), {"hint": Hint()})
    with pytest.raises(ldmkit.CompositionError, match=r"unknown-port.*'down.3'"):
        pipe.with_adapter("s", ldmkit.load_adapter(tmp_path / "c"), {"hint": Hint()})
    with pytest.raises(ldmkit.CompositionError, match=r"dim-mismatch.*"):
        pipe.with_adapter("s", sketch, {"hint": Hint({"channels": 1})})
    with pytest.raises(ldmkit.CompositionError, match=r"not-tunable.*ports"):
        sketch.tuned(ports=("down.1", "down.0"))
    assert {name: port.taps for name, port in pipe.denoiser.ports.items()} == ports
    one = pipe.with_adapter("s", sketch, {"hint": Hint()})
    with pytest.raises(ldmkit.InputError, match=r"size"):
        one({"text": "a", "s": hint(16, 16)}, steps=2, size=(32, 32))
    coarse = pipe.with_adapter("s", ldmkit.load_adapter(tmp_path / "d"), {"hint": Hint()})
    with pytest.raises(ldmkit.InputError, match=r"hint-size.*\(4, 4\).*'down.0'.*\(16, 16\)"):
        coarse({"text": "a", "s": hint()}, steps=2)
    with pytest.raises(ldmkit.InputError, match=r"hint-size.*30 x 34.*multiples of 8"):
        coarse({"text": "a", "s": hint(30, 34)}, steps=2)
