"""Parsing of command-line words: conditions, sizes, strategies and scales."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldmkit.errors import InputError, SourceError, shown, suggest
from ldmkit.files.json import parse_json

if TYPE_CHECKING:
    from ldmkit.cascade import Cascade
    from ldmkit.contracts.extractor import Extractor
    from ldmkit.pipeline import Pipeline
    from ldmkit.run.extracting import Extracted


def words_of(arguments: Iterable[str]) -> Iterator[tuple[str | None, str | None]]:
    """(name, value) for every option, `--name value` or `--name=value`, and (None, word) for other words.

    An option without a value, which can only be the last, has the value None.
    """
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            yield None, word
            continue
        name, has_value, value = word[2:].partition("=")
        yield name, value if has_value else next(words, None)


def split_words(arguments: Iterable[str]) -> tuple[str | None, list[str]]:
    """(the model, all other words) from the arguments that are not options of the command itself.

    The model is the first word that is neither an option nor a scale (`text=7.5`), or that is an existing path.
    """
    rest: list[str] = []
    model: str | None = None
    for name, value in words_of(arguments):
        if name is not None:
            rest.append(f"--{name}" if value is None else f"--{name}={value}")
        elif value is not None and model is None and ("=" not in value or Path(value).exists()):
            model = value
        elif value is not None:
            rest.append(value)
    return model, rest


def conditions(
    pipeline: Pipeline | Cascade, arguments: Iterable[str], extractors: Mapping[str, Extractor] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """(inputs, name=scale pairs) from the arguments that are no options of the command itself.

    Args:
        extractors: of those inputs that are extracted.
    """
    owners = pipeline.inputs
    given: dict[str, Any] = {}
    scales: list[str] = []
    for name, value in words_of(arguments):
        if name is None:
            scales += [] if value is None else [value]
            continue
        if name not in owners:
            what = f"neither the command nor the model {pipeline.origin or ''}".rstrip() + f" has an option --{name}"
            raise InputError("unknown-option", what, fits=suggest(name, owners))
        if name in given:
            raise InputError("option-twice", f"--{name} is given twice")
        if value is None:
            raise InputError("option-empty", f"--{name} requires a value")
        extractor = (extractors or {}).get(name)
        given[name] = owners[name].from_text(value) if extractor is None else _extracted(extractor, value)
    return given, scales


def _extracted(extractor: Extractor, text: str) -> Extracted:
    from ldmkit.run.extracting import Extracted

    return Extracted(extractor.from_text(text), extractor)


def parse_size(text: str | None) -> int | tuple[int, ...] | None:
    """`256`, `384x512` (height x width) or `17x384x512` (frames x height x width)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 3 or not all(side.isascii() and side.isdecimal() for side in sides):
        raise InputError("size-type", f"got {text!r}", where="--size", fits="HEIGHTxWIDTH, or one number")
    numbers = [int(side) for side in sides]
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def parse_strategy(text: str | None, option: str) -> str | dict[str, Any] | None:
    """Parse a name, or a name with a config: `ddim:eta=1`, `my-dist:mine:order=2`, `explicit:values=[5,1,0]`."""
    head, equals, _ = (text or "").partition("=")
    name, colon, _ = head.rpartition(":")
    if text is None or not colon or not equals:
        return text
    return {"type": name, "config": _config(text[len(name) + 1 :], option)}


def _config(text: str, option: str) -> dict[str, Any]:
    """`key=value,key=value`, where values are JSON or text."""
    config: dict[str, Any] = {}
    for pair in re.split(r",(?=\w+=)", text):
        key, equals, value = pair.partition("=")
        if not equals or key in config:
            raise InputError("strategy-config", f"got {shown(pair)}", where=option, fits="name:key=value,key=value")
        try:
            config[key] = parse_json(value, option, InputError)
        except InputError:
            config[key] = value
    return config


def parse_stages(pairs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`up.steps=10 up.guidance=4 base.size=64` as the arguments of each stage of a cascade.

    Raises:
        InputError: `stage-argument`, `option-twice`.
    """
    read: dict[str, Callable[[str], Any]] = {
        "steps": _integer, "seeds": _integer, "size": parse_size, "guidance": parse_guidance,
        **{name: partial(parse_strategy, option="--stage") for name in ("sampler", "grid", "cache")},
    }  # fmt: skip
    stages: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        place, equals, value = pair.partition("=")
        stage, _, name = place.partition(".")
        if not equals or not stage or name not in read:
            fits = f"stage.argument=value, with {', '.join(read)}"
            raise InputError("stage-argument", f"got {shown(pair)}", where="--stage", fits=fits)
        if name in stages.setdefault(stage, {}):
            raise InputError("option-twice", f"{place} is given twice", where="--stage")
        stages[stage][name] = read[name](value)
    return stages


def _integer(text: str) -> Any:
    """An integer, or the text itself, which the call then refuses."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 21 else text


def parse_guidance(text: str | None) -> str | float | dict[str, Any] | None:
    """A scale, a name, or a name with its config."""
    try:
        return None if text is None else _number(text)
    except ValueError:
        return parse_strategy(text, "--guidance")


def _number(text: str) -> float:
    """Parse a number as in JSON or C, unlike `float`, which also accepts 1_000, digits of any script, and blanks.

    Raises:
        ValueError: anything else.
    """
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(text)
    return float(text)


def parse_scales(pairs: list[str]) -> dict[str, float]:
    """Parse `text=7.5` pairs to a mapping."""
    scales: dict[str, float] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name in scales:
            raise InputError("option-twice", f"{name!r} has two scales", where="--set")
        try:
            scales[name] = _number(number)
        except ValueError:
            fits = "name=scale, e.g. text=7.5"
            raise InputError("scale-type", f"got {shown(pair)}", where="--set", fits=fits) from None
    return scales


def chosen_guidance(guidance: str | None, pairs: list[str]) -> Any:
    """The guidance chosen by `--guidance` or `--set`."""
    if guidance is not None and pairs:
        fits = "one scale for all conditions (--guidance), or one per condition (--set)"
        raise InputError("option-conflict", "--guidance and --set exclude each other", fits=fits)
    return parse_scales(pairs) if pairs else parse_guidance(guidance)


def negatives(pipeline: Pipeline | Cascade, pairs: Iterable[str]) -> dict[str, Any] | list[dict[str, Any]]:
    """Inputs to move away from, from the `name=value` pairs of `--negative`.

    Returns one mapping, or one per picture if a name is given several times; names given once are in all of them.

    Raises:
        InputError: `batch-mismatch`: two names are given several times, but not equally often.
    """
    by_name: dict[str, list[str]] = {}
    for pair in pairs:
        by_name.setdefault(pair.partition("=")[0], []).append(pair.partition("=")[2])
    count = max((len(values) for values in by_name.values()), default=1)
    for name, values in by_name.items():
        if len(values) not in (1, count):
            what = f"{name!r} is given {len(values)} times, another {count} times"
            raise InputError("batch-mismatch", what, where="--negative", fits="once, or once per picture")
    rows = [
        conditions(pipeline, [f"--{name}={values[i % len(values)]}" for name, values in by_name.items()])[0]
        for i in range(count)
    ]
    return rows[0] if count == 1 else rows


def parse_embedding(text: str) -> tuple[str, dict[str, Any]]:
    """(file, {"token": its word}) of `FILE` or `FILE=WORD`.

    Raises:
        InputError: `token`: nothing behind the equals sign.
        SourceError: `not-found`.
    """
    if text.startswith("hf:") or Path(text).expanduser().exists():
        file, equals, word = (text, "", "") if not text.startswith("hf:") else text.partition("=")
    else:
        ends = [at for at, letter in enumerate(text) if letter == "="]
        at = next((at for at in ends if Path(text[:at]).expanduser().exists()), ends[0] if ends else len(text))
        file, equals, word = text[:at], text[at : at + 1], text[at + 1 :]
        if not Path(file).expanduser().exists():
            raise SourceError("not-found", f"there is no file or folder {file[:200]!r}", where="--embedding")
    if equals and not word:
        raise InputError("token", "there is no word behind the =", where="--embedding", fits="FILE, or FILE=<word>")
    return file, {"token": word} if word else {}


def parse_update(text: str, option: str = "--lora") -> tuple[str, dict[str, Any]]:
    """(file, {"scale": its scale}) of `FILE` or `FILE:SCALE`.

    Raises:
        InputError: `scale-range`: no number behind the colon, where no such file is.
        SourceError: `not-found`.
    """
    file, colon, number = text.rpartition(":")
    options: dict[str, Any] = {}
    if not colon or Path(text).exists() or file == "hf":
        file = text
    else:
        try:
            options["scale"] = float(number)
        except ValueError:
            options["scale"] = math.nan
        if not math.isfinite(options["scale"]):
            raise InputError("scale-range", f"{number!r} is not a scale", where=option, fits="FILE, or FILE:0.8")
    if not file.startswith("hf:") and not Path(file).expanduser().exists():
        raise SourceError("not-found", f"there is no file or folder {file[:200]!r}", where=option)
    return file, options


def parse_adapter(text: str) -> tuple[str, dict[str, Any]]:
    """(file, options) of `FILE`, `FILE:SCALE`, `FILE:encoder=FOLDER,end=0.5` or `FILE:SCALE,encoder=FOLDER`.

    Raises:
        InputError: `strategy-config`, `scale-range`.
        SourceError: `not-found`.
    """
    pairs = None if Path(text).exists() else re.search(r"[:,](?=\w+=)", text)
    file, scale = parse_update(text if pairs is None else text[: pairs.start()], "--adapter")
    return file, {**scale, **({} if pairs is None else _config(text[pairs.end() :], "--adapter"))}
