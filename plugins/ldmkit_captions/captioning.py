"""Captions of all pictures of a data set, by a captioner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldmkit import Captioner, Captions, Data, InputError, PartSpec, RunError, build_value, from_levels, part_spec
from ldmkit.cli.words import parse_strategy
from ldmkit.models.updates import digest_of
from ldmkit_captions.caption_file import CaptionFile


def captioner_of(text: str) -> Captioner:
    """The captioner of a command-line option: `miniworld`, `image-to-text:model=blip`.

    Raises:
        PluginError, SpecError: no such captioner, or not with these fields.
    """
    spelt: Any = parse_strategy(text, "--captioner")
    spec = PartSpec(type=spelt) if isinstance(spelt, str) else PartSpec.of(spelt, "--captioner")
    made: Captioner = build_value("captioner", spec, "--captioner")
    return made


def recorded(captioner: Captioner) -> dict[str, Any]:
    """A captioner as records hold it: its spec, and SHA-256 of the files that it reads."""
    spec = part_spec("captioner", captioner).model_dump(mode="json")
    named = {field: getattr(captioner, field) for field in type(captioner).reads}
    return {**spec, "sha256": {field: digest_of(Path(str(path))) for field, path in named.items() if path is not None}}


def write_captions(spec: PartSpec, captioner: Captioner, file: CaptionFile, count: int | None, under: str) -> None:
    """Write the captions that a file lacks; a text in the record is written beside them, as `original`.

    Args:
        count: only of so many first pictures; None: of all.
        under: path from the captions' file to the folder that pictures' names start from; "": none is written.

    Raises:
        InputError: a file that cannot be read, or facts that do not fit; the sample is named.
        RunError: `captioner-failed`, `bad-return`.
    """
    source: Data = build_value("data", spec, "DATA")
    dataset = source.open(Path())
    for index in range(len(dataset) if count is None else min(count, len(dataset))):
        name = dataset.id(index)
        written = f"{under}/{name}" if under not in ("", ".") else name
        if written in file.done:
            continue
        sample = dataset[index]
        text = next((value for key in ("text", "caption") if isinstance(value := sample.inputs.get(key), str)), None)
        found = _captions(captioner, sample.image, sample.inputs, name)
        file.add(written, found, **({} if text is None else {"original": text}))
    file.finish()


def _captions(captioner: Captioner, image: Any, facts: Any, name: str) -> Captions:
    try:
        found = captioner.caption(from_levels(image), facts)
    except InputError as problem:
        problem.where = f"{name}: {problem.where}" if problem.where else name
        raise
    fine = isinstance(found, Captions) and all(isinstance(t, str) and any(map(str.isalnum, t)) for t in found)
    if not fine:
        what = f"{type(captioner).__name__} breaks its contract: it says {found!r:.100} of {name}"
        raise RunError("bad-return", what, fits="Captions of two texts with words in them")
    return found
