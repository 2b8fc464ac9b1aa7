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
from ldmkit.models.changed import remark_unsaved
from ldmkit.models.saving import save_part
from ldmkit.plugins.catalogue import components

L = {"label": 1}


def said(call: Callable[[], object], word: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if issubclass(w.category, DrawingWarning) and word in str(w.message)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_layers(tmp_path: Path) -> None:
    pipe = tiny_parts.class_pipeline()
    for module in pipe.denoiser.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = nn.Linear  # torch quantises no subclass of it
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


def exchanged(part: Any, kind: type[nn.Module], other: Callable[[Any], Any]) -> str:
    """Put another module in the place of the first of a kind; its name."""
    name = next(name for name, module in part.named_modules() if isinstance(module, kind))
    owner, _, leaf = name.rpartition(".")
    setattr(part.get_submodule(owner), leaf, other(part.get_submodule(name)))
    return name


def other_norm(norm: nn.GroupNorm) -> nn.Module:
    class Louder(nn.GroupNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    made = Louder(norm.num_groups, norm.num_channels, norm.eps)
    made.load_state_dict(norm.state_dict())
    return made


def set_first(kind: type[nn.Module], **values: Any) -> Callable[[Any], Any]:
    def change(part: Any) -> None:
        module = next(module for module in part.modules() if isinstance(module, kind))
        for name, value in values.items():
            assert hasattr(module, name)
            setattr(module, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: exchanged(part, nn.GroupNorm, other_norm), "the class Louder (the config makes GroupNorm) of"),
        (set_first(nn.GroupNorm, eps=0.5), "eps=0.5 (the config makes 1e-0"),
        (set_first(nn.Conv2d, padding=(2, 2), dilation=(2, 2)), "padding=(2, 2) (the config makes (1, 1)) of"),
        (lambda part: part.conv_out.register_module("more", nn.ReLU()), "an added module of denoiser.conv_out.more is"),
    ],
)
def test_modules_that_the_config_does_not_make_are_said(tmp_path: Path, change: Any, words: str) -> None:
    """They draw other pictures, and have the same tensors: what is loaded again is what it was."""
    pipe = tiny_parts.class_pipeline()
    change(pipe.denoiser)
    (found,) = said(lambda: pipe.save(tmp_path / "m"), "saved")
    assert words in found and "denoiser." in found
    codec = tiny_parts.kl_codec()
    set_first(nn.Conv2d, padding_mode="circular")(codec)
    (found,) = said(lambda: save_part("codec", codec, tmp_path / "codec"), "saved")
    assert "padding_mode='circular' (the config makes 'zeros') of codec." in found


def built() -> list[tuple[str, nn.Module]]:
    names = [(kind, name) for kind in ("codec", "denoiser", "conditioner", "adapter") for name in components(kind)]
    classes = [(f"{kind} {name}", ldmkit.get(kind, name)) for kind, name in names]
    return [(name, cls(example.config)) for name, cls in classes for example in cls.examples]


def test_nothing_is_said_of_parts_as_they_are_made() -> None:
    parts = built()
    assert len(parts) > 20
    for name, part in parts:
        assert not said(lambda part=part, name=name: remark_unsaved({name: part}), "saved"), name


def test_nothing_is_said_of_parts_that_were_used(tmp_path: Path) -> None:
    """Drawn with, converted, planned, placed and loaded: no setting of theirs is another one then."""
    pipe = tiny_parts.scene_pipeline()
    pipe({"label": 1}, steps=2)
    pipe.save(tmp_path / "m")
    for one in (pipe.to(torch.float64), ldmkit.load(tmp_path / "m"), pipe.placed("lowest-memory")):
        one({"label": 1}, steps=2)
        assert not said(lambda one=one: remark_unsaved(one.parts.items()), "saved")


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
