"""What becomes of captions when they are used: a trigger word in front, tags in another order, some left out."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator

from ldmkit import InputError, SpecError, Value, seeded, suggest

Share = Annotated[float, Field(ge=0, le=1)]


class CaptionRule(Value):
    """How a text is changed whenever its sample is used: by seed, epoch and sample, so that a resumed run has the same.

    Args:
        shares: name of a text in the data -> how often it becomes this one, which need not be in the data itself
            (`text: {shares: {long: 0.95, original: 0.05}}`); they sum to 1. Validation and previews take the one with
            the largest share.
        prefix: stands before every text, as it is written here ("sks, "): a trigger word.
        suffix: stands behind every text.
        shuffle: put a text's tags into another order in every epoch.
        keep: so many tags stay in front, in their order, and are never left out.
        separator: of tags.
        tag_dropout: probability of each other tag being left out.
        dropout: probability of the whole text being left out: it is the empty text, without prefix or suffix. (What
            stands for a condition that is left out is `objective.dropout`'s.)
    """

    shares: dict[str, Share] = Field(default_factory=dict)
    prefix: str = ""
    suffix: str = ""
    shuffle: bool = False
    keep: int = Field(default=0, ge=0)
    separator: str = Field(default=",", min_length=1)
    tag_dropout: Share = 0.0
    dropout: Share = 0.0

    @model_validator(mode="after")
    def _does_something(self) -> CaptionRule:
        if not (self.shares or self.prefix or self.suffix or self.tagged or self.dropout):
            fits = "shares, prefix, suffix, shuffle, tag_dropout or dropout"
            raise SpecError("empty-rule", "the rule changes no text", where="data.captions", fits=fits)
        if self.shares and not isclose(total := sum(self.shares.values()), 1.0, abs_tol=1e-6):
            listed = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
            what = f"the shares {listed} sum to {total:g}"
            raise SpecError("caption-shares", what, where="data.captions", fits="shares that sum to 1")
        return self

    def source(self, *key: object) -> str:
        """The text in the data that is used; without a key, as in validation: the one with the largest share."""
        if not key:
            return max(self.shares, key=lambda name: self.shares[name])
        drawn = float(torch.rand((), generator=seeded(*key, "share"), dtype=torch.float64)) * sum(self.shares.values())
        for name, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                return name
        return max(self.shares, key=lambda name: self.shares[name])  # where rounding left a rest

    @property
    def tagged(self) -> bool:
        """Whether texts are taken apart into tags."""
        return self.shuffle or self.tag_dropout > 0

    def applied(self, text: str, *key: object) -> str:
        """A text as it is used; without a key, as in validation: whole, in its own order."""
        if not key:
            return f"{self.prefix}{text}{self.suffix}"
        draws = torch.rand(2, generator=seeded(*key, "caption"), dtype=torch.float64)
        if float(draws[0]) < self.dropout:
            return ""
        if self.tagged:
            text = self._tags(text, *key)
        return f"{self.prefix}{text}{self.suffix}"

    def _tags(self, text: str, *key: object) -> str:
        tags = [tag for part in text.split(self.separator) if (tag := part.strip())]
        first, others = tags[: self.keep], tags[self.keep :]
        generator = seeded(*key, "tags")
        kept = torch.rand(len(others), generator=generator, dtype=torch.float64) >= self.tag_dropout
        order = torch.randperm(len(others), generator=generator).tolist() if self.shuffle else range(len(others))
        between = self.separator + (" " if self.separator in (",", ";") else "")
        return between.join([*first, *(others[i] for i in order if kept[i])])


def captioned(inputs: Mapping[str, Any], rules: Mapping[str, CaptionRule], *key: object) -> dict[str, Any]:
    """A sample's inputs with its texts as they are used.

    Raises:
        InputError: `no-caption`: the sample lacks a text that one of the shares names.
    """
    found = dict(inputs)
    for name, rule in rules.items():
        own = (*key, name) if key else ()
        if rule.shares:
            found[name] = _shared(inputs, name, rule, *own)
        if isinstance(text := found.get(name), str):
            found[name] = rule.applied(text, *own)
    return found


def _shared(inputs: Mapping[str, Any], name: str, rule: CaptionRule, *key: object) -> str:
    for wanted in rule.shares:
        if not isinstance(inputs.get(wanted), str):
            texts = [other for other, value in inputs.items() if isinstance(value, str)]
            what = f"the sample has no caption {wanted!r}, which `shares` names"
            raise InputError("no-caption", what, where=f"data.captions.{name}", fits=suggest(wanted, texts))
    return str(inputs[rule.source(*key)])
