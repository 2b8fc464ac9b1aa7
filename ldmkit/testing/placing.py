"""Checks that a part gives the same results when its weights are kept elsewhere and fetched for its calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ldmkit.models.placement import PartPlacement, When
from ldmkit.models.placing import blocks_of, place_part
from ldmkit.models.residence import home_of, in_use
from ldmkit.models.resting import Resting
from ldmkit.testing.batches import same
from ldmkit.testing.checks import NotApplicable, expect
from ldmkit.testing.modules import ModuleSubject, plain_tensors, ran


class _Spoiled:
    """A resting tensor whose module holds NaN meanwhile, so that any use of it shows."""

    def __init__(self, kept: Resting) -> None:
        self._kept = kept
        self.shown = torch.full_like(kept.shown, torch.nan) if kept.shown.is_floating_point() else kept.shown

    def fetched(self, device: torch.device) -> Tensor:
        return self._kept.fetched(device).clone()


def placed(s: ModuleSubject) -> None:
    """With weights kept elsewhere and fetched for its calls, as a whole or block by block, results are bit-equal.

    `Pipeline.placed` keeps text encoders and codecs off the device while they are not in use, and streams the weights
    of networks. The streamed blocks are those that a denoiser declares (`regions`), else the members of `nn.ModuleList`
    and `nn.Sequential`: call them (`block(x)`), and do not read their weights from outside (`self.blocks[0].weight`).
    A tensor stored as an attribute between calls would stay on the device: return it instead, or make it a buffer.
    """
    plain = s.make()
    if not any(True for _ in plain.parameters()):
        raise NotApplicable("it has no weights")
    wanted = ran(s, plain, s.given(plain))
    ways: tuple[When, ...] = ("at-use", "streamed") if any(True for _ in blocks_of(plain)) else ("at-use",)
    for when in ways:
        part = s.make()
        before = _kept(part)
        place_part([part], PartPlacement(when=when), torch.device("cpu"), "cpu")
        _spoil(part)
        for call in ("first", "second"):
            with in_use([part]):
                found = ran(s, part, s.given(part))
            same(found, wanted, f"outputs of the {call} call with weights {when}")
        added = sorted(_kept(part) - before)
        expect(not added, "no tensor stored between calls", f"attributes {added[:4]}")


def _spoil(part: Any) -> None:
    home = home_of(part)
    assert home is not None
    for shelf in home.shelves:
        shelf.resting = {place: _Spoiled(one) for place, one in shelf.resting.items()}
        shelf.rest()


def _kept(part: nn.Module) -> set[str]:
    """Paths of tensors that are plain attributes, or in containers that are."""
    inside = {
        f"{path}.{name}" if path else name
        for path, module in part.named_modules()
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers") and _holds_tensors(value)
    }
    return inside | {name for name, _ in plain_tensors(part)}


def _holds_tensors(value: object) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    return any(isinstance(item, Tensor) for item in items)
