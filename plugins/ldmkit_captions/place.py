"""What rewriters check in common: the place of the prompt in a text of theirs, and that a prompt has words."""

from __future__ import annotations

from ldmkit import InputError

PLACE = "{prompt}"


def one_place(text: str) -> str:
    """The text itself, for a field's validator.

    Raises:
        ValueError: `PLACE` does not stand in it exactly once.
    """
    if text.count(PLACE) != 1:
        raise ValueError(f"{PLACE} stands in it {text.count(PLACE)} times, it must once")
    return text


def check_words(prompt: str) -> None:
    """
    Raises:
        InputError: `empty-prompt`.
    """
    if not any(map(str.isalnum, prompt)):
        raise InputError("empty-prompt", "there are no words to rewrite", fits="a prompt")
