"""The contract of classifiers of noisy latents: logits that guidance can follow, at every noise level.

The kit's classifiers have random weights. The checks from `meta` on are shared by all modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.judges import Classifier
from ldmkit.errors import InputError
from ldmkit.testing.asked import Asked
from ldmkit.testing.batches import close, differ, normal
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import Report, check, expect, fail
from ldmkit.testing.modules import ROWS, ModuleSubject, share

SIGMAS = (0.05, 1.0, 20.0)
"""Noise levels, one per row."""

SIZES = ((8, 8), (8, 12), (16, 8))
"""Rows and columns of the latents."""


@dataclass(frozen=True)
class ClassifierSubject(ModuleSubject):
    """A classifier and one configuration of it."""

    def given(self, part: Any) -> dict[str, Any]:
        return {"x": latents(part, SIZES[1]), "sigma": list(SIGMAS)}

    def outputs(self, part: Any, given: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return (part(given["x"], given["sigma"]),)

    def output_dtype(self, part: Any) -> torch.dtype:
        return torch.float32


def subject(cls: type[Any], example: Example) -> ClassifierSubject:
    """The subject of the checks: a class and one of its examples."""
    return ClassifierSubject(cls, example.config, example.trained)


def check_classifier(cls: type[Classifier], config: Mapping[str, Any] | None = None) -> Report:
    """Run all checks of a classifier.

    Args:
        config: its config; None: those of its examples.
    """
    return check_class("classifier", cls, None if config is None else Example(config))


def latents(part: Any, size: tuple[int, int]) -> Tensor:
    """x = x0 + sigma * noise for `SIGMAS`."""
    noise = normal(ROWS, part.channels, *size, like=part, seed=1)
    levels = torch.tensor(SIGMAS, device=part.device, dtype=part.dtype).view(-1, 1, 1, 1)
    return normal(ROWS, part.channels, *size, like=part) + levels * noise


@check("classifier", "declared")
def declared(s: ClassifierSubject) -> None:
    """`channels` and `classes` are positive ints; `names` is empty, or has one name per class.

    Guidance compares `channels` with the codec's before a run, and users select classes by number or name.
    """
    part = s.make()
    for name in ("channels", "classes"):
        value = getattr(part, name, None)
        expect(type(value) is int and value > 0, f"{name} to be a positive int", f"{value!r}")
    names = part.names
    expect(isinstance(names, tuple), "names to be a tuple", f"{names!r:.80}")
    expect(len(names) in (0, part.classes), f"0 or {part.classes} names", f"{len(names)}")
    expect(len(set(names)) == len(names), "names that are all different", f"{names!r:.80}")


@check("classifier", "number")
def number(s: ClassifierSubject) -> None:
    """`number` converts names and numbers of classes to numbers, and refuses others with an `InputError`.

    The inherited method does this; its error says what would fit.
    """
    part = s.make()
    for index in {0, part.classes - 1}:
        expect(part.number(index, "labels") == index, f"class {index} for {index}", f"{part.number(index, 'labels')!r}")
    for index, name in enumerate(part.names):
        expect(part.number(name, "labels") == index, f"class {index} for {name!r}", f"{part.number(name, 'labels')!r}")
    for wrong in (part.classes, -1, "no such class", True):
        try:
            found = part.number(wrong, "labels")
        except InputError:
            continue
        fail(f"an InputError for class {wrong!r}", f"{found!r}")


@check("classifier", "shape")
def shape(s: ClassifierSubject) -> None:
    """x (B,channels,h,w) and one noise level per row give finite logits (B,classes), for latents of any size.

    Noise levels are Python numbers in any sequence type, from almost no noise to pure noise. Logits are float32.
    """
    part = s.make()
    for size in SIZES:
        x = latents(part, size)
        for sigma in (list(SIGMAS), tuple(SIGMAS), (0.002, 80.0, 150.0)):
            with torch.no_grad():
                found = part(x, sigma)
            wanted = (ROWS, part.classes)
            expect(tuple(found.shape) == wanted, f"logits {wanted} for latents {size}", f"{tuple(found.shape)}")
            expect(found.dtype == torch.float32, "logits in torch.float32", f"{found.dtype}")
            expect(bool(found.isfinite().all()), f"finite logits for latents {size}, sigma {sigma}", "NaN or infinity")


@check("classifier", "sigma-matters")
def sigma_matters(s: ClassifierSubject) -> None:
    """Logits depend on the noise level, row by row.

    The noise level says how much of x is noise. x is x0 + sigma * noise for every process, so its scale grows with
    sigma: convert it to the scale that the network was trained with (`process.alpha(sigma)`).
    """
    part = s.make()
    x = latents(part, SIZES[0])
    with torch.no_grad():
        base = part(x, SIGMAS)
        for row in range(ROWS):
            levels = [2 * sigma if k == row else sigma for k, sigma in enumerate(SIGMAS)]
            found = part(x, levels)
            expect(differ([found[row]], [base[row]]), f"logits of row {row} to depend on its noise level", "the same")
            others = [k for k in range(ROWS) if k != row]
            close([found[others]], [base[others]], f"logits of all rows but {row}, whose noise level changed")


@check("classifier", "gradient")
def gradient(s: ClassifierSubject) -> None:
    """Log-probabilities have a finite gradient in x, in every row and channel, with the weights frozen.

    Guidance moves samples along it (Dhariwal & Nichol 2021, algorithm 1).
    """
    part = s.make().requires_grad_(False)
    x = latents(part, SIZES[1]).requires_grad_()
    logits = part(x, SIGMAS)
    expect(logits.requires_grad, "logits that gradients can start from", "they require no gradient")
    (grown,) = torch.autograd.grad(logits.log_softmax(1)[:, 0].sum(), x)
    expect(bool(grown.isfinite().all()), "a finite gradient", "NaN or infinity")
    flat = [(b, c) for b in range(ROWS) for c in range(part.channels) if not bool(grown[b, c].any())]
    expect(not flat, "a gradient in every row and channel", f"0 at {flat[:4]}")


@check("classifier", "no-waiting")
def no_waiting(s: ClassifierSubject) -> None:
    """It never reads tensor values on the host.

    It is called at every step of a guided run: `.item()` and conditions on tensors synchronise with the GPU.
    """
    part = s.make()
    given = s.given(part)
    with torch.no_grad(), Asked() as asked:
        s.outputs(part, given)
    expect(not asked.found, "no tensor values read on the host", f"{len(asked.found)} time(s): {asked.found[:3]}")


share("classifier")
