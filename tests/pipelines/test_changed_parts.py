"""Parts that were changed by hand: mixed dtypes and quantised layers are named, hooks that no file holds are said.

And gradients, which drawing cuts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
from torch import nn

import ldmkit
from ldmkit.errors import DrawingWarning
from ldmkit.models.saving import save_part

L = {"label": 1}


def said(call: Callable[[], object], word: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if issubclass(w.category, DrawingWarning) and word in str(w.message)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_layers(tmp_path: Path) -> None:
    pipe = tiny_parts.class_pipeline()
    torch.ao.quantization.quantize_dynamic(pipe.denoiser, {nn.Linear}, dtype=torch.qint8, inplace=True)
    for call in (lambda: pipe(L, steps=2), lambda: list(pipe.stream(L, steps=2)), lambda: pipe.save(tmp_path / "m")):
        with pytest.raises(ldmkit.RunError, match=r"mixed-tensors\] denoiser: quantised layers \(Linear"):
            call()
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["mid", "conv_out"])
def test_one_module_of_another_dtype(name: str, dtype: torch.dtype) -> None:
    pipe = tiny_parts.class_pipeline()
    getattr(pipe.denoiser, name).to(dtype)
    with pytest.raises(ldmkit.RunError, match=rf"denoiser: float32 in 'conv_in.weight', {str(dtype)[6:]} in '{name}"):
        pipe(L, steps=2)


def test_other_errors_stay_as_they_are() -> None:
    pipe = tiny_parts.class_pipeline()

    def stop(step: ldmkit.Step) -> None:
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        pipe(L, steps=2, on_step=stop)


def hook(module: nn.Module, *_: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: part.conv_out.register_forward_hook(hook), "a forward hook of denoiser.conv_out is"),
        (lambda part: part.register_forward_pre_hook(hook), "a forward hook of denoiser is"),
        (lambda part: setattr(part.mid, "forward", part.mid.forward), "a replaced `forward` of denoiser.mid is"),
        (lambda part: [m.register_forward_hook(hook) for m in (part.conv_in, part.conv_out)], "conv_in and 1 more is"),
    ],
)
def test_what_no_file_holds_is_said(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    pipe = tiny_parts.class_pipeline()
    assert not said(lambda: pipe.save(tmp_path / "plain"), "saved")
    change(pipe.denoiser)
    (found,) = said(lambda: pipe.save(tmp_path / "m"), "saved")
    assert words in found
    codec = tiny_parts.kl_codec()
    codec.register_forward_hook(hook)
    (found,) = said(lambda: save_part("codec", codec, tmp_path / "codec"), "saved")
    assert "codec" in found


LATENTS = torch.zeros(3, 8, 8, requires_grad=True)


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda p: p(L, start={"latents": LATENTS}), "start.latents"),
        (lambda p: p(L, start=[{"latents": LATENTS}, {"latents": LATENTS}], seeds=[0, 1]), "start[0].latents"),
        (lambda p: p(L, start=LATENTS), "start"),
        (lambda p: p(L, guidance=torch.tensor(3.0, requires_grad=True)), "guidance"),
        (lambda p: p.decode(LATENTS[None]), "latents"),
        (lambda p: p.encode(LATENTS[None]), "images"),
    ],
)
def test_a_gradient_that_ends_is_said(call: Callable[[Any], Any], where: str) -> None:
    pipe = tiny_parts.class_pipeline()
    (found,) = said(lambda: call(pipe), "requires a gradient")
    assert found.startswith(f"{where} requires")
    with torch.no_grad():
        assert not said(lambda: call(pipe), "requires a gradient")


def test_nothing_is_said_without_one() -> None:
    pipe = tiny_parts.class_pipeline()
    assert not said(lambda: pipe(L, start={"latents": LATENTS.detach()}), "requires a gradient")
