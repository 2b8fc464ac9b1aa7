"""Whether a part computes as ever when its weights are kept elsewhere and fetched for its calls."""

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
    """A tensor whose module holds NaN instead while it rests: what is computed with it then shows."""

    def __init__(self, kept: Resting) -> None:
        self._kept = kept
        self.shown = torch.full_like(kept.shown, torch.nan) if kept.shown.is_floating_point() else kept.shown

    def fetched(self, device: torch.device) -> Tensor:
        return self._kept.fetched(device).clone()


def placed(s: ModuleSubject) -> None:
    """With its weights kept elsewhere and fetched for its calls, whole or block by block, it gives the same bits.

    `Pipeline.placed` keeps text towers and codecs off the device while they do not compute, and streams the weights of
    networks. Streamed are the blocks that a denoiser declares (`regions`), or else the members of `nn.ModuleList` and
    `nn.Sequential`: call them (`block(x)`), and do not read their weights from outside (`self.blocks[0].weight`). A
    tensor that is kept as an attribute from one call to the next stays on the device where the part has left it: hand
    it on in what is returned, or make it a buffer.
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
        expect(not added, "no tensor kept from one call to the next", f"attributes {added[:4]}")


def _spoil(part: Any) -> None:
    home = home_of(part)
    assert home is not None
    for shelf in home.shelves:
        shelf.resting = {place: _Spoiled(one) for place, one in shelf.resting.items()}
        shelf.rest()


def _kept(part: nn.Module) -> set[str]:
    """Paths of tensors that are plain attributes, or stand in containers that are."""
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
