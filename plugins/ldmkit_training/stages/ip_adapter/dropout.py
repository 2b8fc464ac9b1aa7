"""Dropping the picture, the other conditions, or all of them (Ye et al. 2023, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ldmkit import Draws
from ldmkit_training.stages.denoiser.dropout import ConditionDropout
from ldmkit_training.stages.ip_adapter.section import PromptDrop


class PromptDropout(ConditionDropout):
    """The rules of `ConditionDropout`, and independently of them those of `PromptDrop`: a row keeps what both keep.

    Args:
        prompt: name of the input that is the picture.
        drop: the shares.
    """

    prompt: str
    drop: PromptDrop

    def kept(self, names: Sequence[str], draws: Draws) -> dict[str, Tensor]:
        rule, drop = draws.uniform("drop-prompt"), self.drop
        both = rule < drop.both
        image = both | (rule >= drop.both) & (rule < drop.both + drop.image)
        text = both | (rule >= drop.both + drop.image) & (rule < drop.both + drop.image + drop.text)
        kept = super().kept(names, draws)
        return {name: keep & ~(image if name == self.prompt else text) for name, keep in kept.items()}

    def expected(self, names: Sequence[str]) -> dict[str, float]:
        drop = self.drop
        found = {}
        for name, share in super().expected(names).items():
            own = drop.both + (drop.image if name == self.prompt else drop.text)
            found[name] = 1 - (1 - share) * (1 - own)
        return found
