"""`--extract` as inputs that are extracted: which input, and by what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ldmkit.cli.words import parse_strategy
from ldmkit.errors import InputError, suggest

if TYPE_CHECKING:
    from ldmkit.cascade import Cascade
    from ldmkit.contracts.extractor import Extractor
    from ldmkit.pipeline import Pipeline

OPTION = "--extract"
Spelt = str | dict[str, Any]
"""An extractor's name, or its name and config."""


def parse_extract(text: str) -> tuple[str | None, Spelt]:
    """(input, extractor) of `canny`, `canny:low=50,high=120` and `edges=canny:low=50`; None: the input is not named.

    Raises:
        InputError: `option-empty`, `strategy-config`.
    """
    head, equals, rest = text.partition("=")
    name, text = (head, rest) if equals and ":" not in head else (None, text)
    spelt = parse_strategy(text, OPTION)
    if not spelt or name == "":
        raise InputError("option-empty", f"{OPTION} wants an extractor", fits="canny, or edges=canny:low=50,high=120")
    return name, spelt


def extractor_name(spelt: Spelt) -> str:
    """The name in it."""
    return spelt if isinstance(spelt, str) else str(spelt["type"])


def extractors_of(
    texts: Iterable[str], pipeline: Pipeline | Cascade, given: Collection[str], lines: bool
) -> dict[str, Extractor]:
    """Input -> its extractor, of all `--extract`.

    One that names no input is for the only picture that is given, or else for the only one that the model takes.

    Args:
        given: names of the inputs on the command line.
        lines: inputs may also stand in a file of prompts.

    Raises:
        InputError: `unknown-input`; `extract-which`: several inputs take pictures; `extract-idle`: none is given for
            it; `option-twice`.
        SpecError, PluginError: no such extractor, or not with that config.
    """
    from ldmkit.run.extracting import extractor_of

    found: dict[str, Extractor] = {}
    for text in texts:
        name, spelt = parse_extract(text)
        name = _which(pipeline, given) if name is None else name
        if name not in pipeline.inputs:
            fits = suggest(name, pipeline.inputs)
            raise InputError("unknown-input", f"the model has no input {name!r}", where=OPTION, fits=fits)
        if name in found:
            raise InputError("option-twice", f"two extractors for the input {name!r}", where=OPTION)
        if name not in given and not lines:
            fits = f"--{name} photo.png {OPTION} {text}"
            raise InputError("extract-idle", f"no picture is given for the input {name!r}", where=OPTION, fits=fits)
        found[name] = extractor_of(spelt)
    return found


def _which(pipeline: Pipeline | Cascade, given: Collection[str]) -> str:
    """The input that is meant where none is named."""
    from pydantic import TypeAdapter

    takes = [
        n for n, part in pipeline.inputs.items() if TypeAdapter(part.Input).json_schema().get("title") == "Picture"
    ]
    some = [name for name in takes if name in given] or takes
    if len(some) == 1:
        return some[0]
    if not takes:
        fits = "a model with an input for pictures, such as that of a ControlNet (--adapter)"
        raise InputError("extract-which", "the model takes no picture", where=OPTION, fits=fits)
    fits = f"the input's name: {OPTION} {some[0]}=canny"
    raise InputError("extract-which", f"it may be for {' or '.join(map(repr, some))}", where=OPTION, fits=fits)


def with_extractor(extractors: Mapping[str, Extractor], name: str, value: Any) -> Any:
    """An input of a file of prompts, extracted where `--extract` says so and it does not say how itself."""
    from ldmkit.run.extracting import Extracted, is_extracted

    return value if name not in extractors or is_extracted(value) else Extracted(value, extractors[name])
