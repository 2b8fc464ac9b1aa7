"""The word pieces of captions, as the `ldm-text` conditioner reads them."""

from __future__ import annotations

import string
from pathlib import Path

from ldmkit_miniworld.captions import words

VOCABULARY = Path(__file__).parent / "vocabulary_files"
"""The folder with vocab.txt: the `assets` of an `ldm-text` conditioner, whose `start` is 2 and `end` 3."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def pieces() -> list[str]:
    """The lines of vocab.txt: special tokens, signs, whole words, and the letters that spell all other words."""
    letters = [*string.ascii_lowercase, *string.digits]
    whole = [word for word in words() if word not in letters]
    return [*SPECIAL, ",", ".", *whole, *letters, *(f"##{letter}" for letter in letters)]
