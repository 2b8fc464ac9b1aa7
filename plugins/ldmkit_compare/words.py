"""The lists of a comparison's command line, read without torch: samplers, and numbers of steps."""

from __future__ import annotations

import re

from ldmkit import InputError
from ldmkit.contracts.arguments import check_steps

_COMMA = re.compile(r",(?![^\[{]*[\]}])(?!\s*\w+=)")
"""A comma between samplers: not one in brackets, nor one before `key=`."""


def sampler_words(text: str, option: str = "--samplers") -> tuple[str, ...]:
    """`euler,ddim:eta=1,my-dist:mine:order=2`, taken apart.

    Raises:
        InputError: `sampler-missing`.
    """
    words = tuple(part.strip() for part in _COMMA.split(text))
    if not all(words):
        fits = "names between commas: euler,dpmpp-2m,unipc"
        raise InputError("sampler-missing", f"got {text!r}", where=option, fits=fits)
    return words


def parse_steps(text: str, option: str = "--steps") -> tuple[int, ...]:
    """`5,10,20` as numbers in order.

    Raises:
        InputError: `steps-type`, `steps-range`, `steps-twice`.
    """
    numbers: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        if not (part.isascii() and part.isdecimal() and len(part) < 9):
            fits = "numbers between commas: 5,10,20"
            raise InputError("steps-type", f"steps are integers, got {part!r}", where=option, fits=fits)
        number = check_steps(int(part))
        if number in numbers:
            raise InputError("steps-twice", f"duplicate step count {number}", where=option, fits="every number once")
        numbers.append(number)
    return tuple(sorted(numbers))
