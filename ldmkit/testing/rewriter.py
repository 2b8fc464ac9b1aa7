"""What a rewriter promises: a text with words in it, the same for the same prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldmkit.contracts.example import Example
from ldmkit.contracts.rewriter import Rewriter
from ldmkit.errors import InputError
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import NotApplicable, Report, check, expect
from ldmkit.testing.rng import without_draws

PROMPTS = (
    "a house",
    "two red boats by a lake, at dusk",
    "a {house} with %s and $x",
    "ein Fluß; 山の家",
    "a\nhouse " * 40,
)
HOSTILE = ("", "   ", "\x00", "a" * 20000, "\ud800")
"""Texts that may be refused, with an `InputError` alone."""


@dataclass(frozen=True)
class Subject:
    """A rewriter to be checked, and prompts."""

    rewriter: Rewriter
    prompts: tuple[str, ...]

    def given(self) -> tuple[str, ...]:
        """The prompts."""
        reads = type(self.rewriter).reads
        if reads and all(getattr(self.rewriter, field) is None for field in reads):
            raise NotApplicable(f"it reads weights ({', '.join(reads)}), and the example names none")
        return self.prompts


def subject(cls: type[Rewriter], example: Example) -> Subject:
    """The subject of the checks: a rewriter's class and one of its examples."""
    return Subject(cls.of(example.config), (*map(str, example.inputs), *PROMPTS))


def check_rewriter(cls: type[Rewriter], config: Mapping[str, Any] | None = None, inputs: Sequence[str] = ()) -> Report:
    """Check a rewriter with these fields and further prompts; with its examples where none are given."""
    if config is None and not inputs:
        return check_class("rewriter", cls)
    first = next(iter(cls.examples), Example())
    return check_class("rewriter", cls, Example(first.config if config is None else config, tuple(inputs)))


def _words(text: Any) -> bool:
    return isinstance(text, str) and any(map(str.isalnum, text))


@check("rewriter", "rewrites", cause=True)
def rewrites(subject: Subject) -> None:
    """`rewrite` returns a text with words in it, whatever signs a prompt has."""
    for prompt in subject.given():
        found = subject.rewriter.rewrite(prompt)
        expect(_words(found), f"a text with words for {prompt!r:.80}", f"{found!r:.200}")


@check("rewriter", "deterministic")
def deterministic(subject: Subject) -> None:
    """The same prompt gives the same text, in any order, and no random generator is touched.

    A recipe holds the rewritten prompt, so that replaying it needs no rewriter; but a series that is resumed rewrites.
    """
    prompts = subject.given()
    first = [without_draws(lambda p=p: subject.rewriter.rewrite(p), seed=1) for p in prompts]  # type: ignore[misc]
    other = type(subject.rewriter).of(json.loads(subject.rewriter.model_dump_json()))
    expect(other == subject.rewriter, f"an equal value from its JSON: {subject.rewriter!r}", f"{other!r}")
    again = [without_draws(lambda p=p: other.rewrite(p), seed=2) for p in prompts[::-1]][::-1]  # type: ignore[misc]
    expect(again == first, f"the same texts again: {first!r:.300}", f"{again!r:.300}")


@check("rewriter", "hostile-prompts")
def hostile_prompts(subject: Subject) -> None:
    """Any text is rewritten, or refused with an `InputError`: empty, blank, very long, with signs that no file has."""
    subject.given()
    for prompt in HOSTILE:
        try:
            found = subject.rewriter.rewrite(prompt)
        except InputError:
            continue
        expect(_words(found), f"a text with words, or an InputError, for {prompt!r:.40}", f"{found!r:.200}")
