"""The contract of perceptual distances: 0 for equal pictures, differentiable, and fixed.

Weights are as the class initialises them, without `load_files`. The checks from `meta` on are shared by all modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.judges import Perceptual
from ldmkit.errors import LdmkitError
from ldmkit.testing.batches import expect_state, normal, same, snapshot
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect, fail, told
from ldmkit.testing.modules import ROWS, ModuleSubject, ran, share

SIZES = ((64, 64), (48, 80), (67, 33))
"""Heights and widths of the kit's pictures."""


@dataclass(frozen=True)
class PerceptualSubject(ModuleSubject):
    """A distance and its config. Its weights stay as built: they are loaded, not trained."""

    def make(self, seed: int = 0) -> Any:
        return self.build().eval()

    def given(self, part: Any) -> dict[str, Tensor]:
        return pairs(part, SIZES[1])

    def outputs(self, part: Any, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return (part(given["images"], given["reference"]),)

    def output_dtype(self, part: Any) -> torch.dtype:
        return torch.float32


def subject(cls: type[Any], example: Example) -> PerceptualSubject:
    """The subject of the checks: a class and one of its examples."""
    return PerceptualSubject(cls, example.config, example.trained)


def check_perceptual(cls: type[Perceptual], config: Mapping[str, Any] | None = None, *, trained: bool = True) -> Report:
    """Run all checks of a distance between pictures.

    Args:
        config: its config; None: those of its examples, with their `trained`.
        trained: False if there is nothing to learn: only such a distance may be 0 for all pictures.
    """
    return check_class("perceptual", cls, None if config is None else Example(config, trained=trained))


def pairs(part: Any, size: tuple[int, int]) -> dict[str, Tensor]:
    """`ROWS` pictures in [-1, 1], and a reference for each."""
    found = {"images": normal(ROWS, 3, *size, like=part), "reference": normal(ROWS, 3, *size, like=part, seed=1)}
    return {name: torch.tanh(0.5 * value) for name, value in found.items()}


@check("perceptual", "shape")
def shape(s: PerceptualSubject) -> None:
    """Two batches of pictures (B,3,H,W) give finite float32 distances (B,), whatever the pictures' dtype and size.

    bfloat16 loses small differences of large numbers: convert the pictures first.
    """
    part = s.make()
    for size in SIZES:
        given = pairs(part, size)
        for dtype in (torch.float32, torch.bfloat16):
            with torch.no_grad():
                found = part(given["images"].to(dtype), given["reference"].to(dtype))
            got = f"{tuple(found.shape)} {found.dtype} for {dtype} pictures {size}"
            expect(found.shape == (ROWS,) and found.dtype == torch.float32, f"({ROWS},) torch.float32", got)
            expect(bool(found.isfinite().all()), f"finite distances of pictures {size}", "NaN or infinity")


@check("perceptual", "equal-pictures")
def equal_pictures(s: PerceptualSubject) -> None:
    """Equal pictures have distance exactly 0, with a finite gradient.

    A square root has an infinite slope at 0, and infinity times 0 is NaN: one perfect row would spoil a training step.
    """
    part = s.make().requires_grad_(False)
    given = pairs(part, SIZES[0])
    images = given["images"].clone().requires_grad_()
    found = part(images, given["images"])
    expect(not bool(found.detach().any()), "distance 0 of equal pictures", f"{found.detach().tolist()}")
    if found.requires_grad:
        (gradient,) = torch.autograd.grad(found.sum(), images)
        expect(bool(gradient.isfinite().all()), "a finite gradient at equal pictures", "NaN or infinity")


@check("perceptual", "not-negative")
def not_negative(s: PerceptualSubject) -> None:
    """Distances are never negative, and positive for different pictures.

    Training adds distances to other losses, so a negative one would be a reward. Only a distance whose example says
    that there is nothing to learn (`trained=False`) may be 0 for all pictures.
    """
    part = s.make()
    idle = _idle(s, part)
    given = pairs(part, SIZES[0])
    images, reference = given["images"], given["reference"]
    for first, second in ((images, reference), (reference, images), (images, 0.5 * images), (images, -images)):
        with torch.no_grad():
            found = part(first, second)
        expect(bool((found >= 0).all()), "distances of 0 or more", f"{found.tolist()}")
        if not idle:
            expect(bool((found > 0).all()), "distances above 0 of different pictures", f"{found.tolist()}")


@check("perceptual", "gradient")
def gradient(s: PerceptualSubject) -> None:
    """Distances are differentiable in the first argument, in every picture.

    A codec is trained through them, with the distance's own weights frozen.
    """
    part = s.make().requires_grad_(False)
    if _idle(s, part):
        raise NotApplicable("it is 0 for all pictures, and its example says that there is nothing to learn")
    given = pairs(part, SIZES[1])
    images = given["images"].clone().requires_grad_()
    found = part(images, given["reference"])
    expect(found.requires_grad, "distances that gradients can start from", "they require no gradient")
    (grown,) = torch.autograd.grad(found.sum(), images)
    expect(bool(grown.isfinite().all()), "a finite gradient", "NaN or infinity")
    flat = [row for row in range(ROWS) if not bool(grown[row].any())]
    expect(not flat, "a gradient in every picture", f"0 in pictures {flat}")


def _idle(s: PerceptualSubject, part: Any) -> bool:
    """Whether it is 0 for all pictures by design."""
    return not s.trained and not any(bool(found.any()) for found in ran(s, part, s.given(part)))


@check("perceptual", "frozen")
def frozen(s: PerceptualSubject) -> None:
    """It is the same in training mode and in eval mode, and a call changes none of its tensors.

    Training switches the mode of all modules. With dropout or batch statistics, a distance would measure something
    different at every step.
    """
    part = s.make()
    given = s.given(part)
    wanted = ran(s, part, given)
    before = snapshot(part)
    same(ran(s, part.train(), given), wanted, "distances in training mode")
    expect_state(part.state_dict(), before, "after a call in training mode")
    same(ran(s, part.eval(), given), wanted, "distances after a call in training mode")


@check("perceptual", "files")
def files(s: PerceptualSubject) -> None:
    """`load_files` refuses missing files with an `LdmkitError`.

    The inherited method refuses all files, for distances that need none. Others must check names and shapes of the
    tensors, as `ldmkit.models.weights.assign` does.
    """
    part = s.make()
    missing = Path("no-such-file.safetensors")
    try:
        part.load_files([missing])
    except LdmkitError:
        return
    except Exception as error:
        fail("an LdmkitError for a missing file", told(error))
    fail("an LdmkitError for a missing file", "it was accepted")


share("perceptual", exclude=("gradients", "training-rows"))
