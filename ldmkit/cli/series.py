"""Many pictures at the command line: requests from a file of prompts, or of one call with many seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldmkit.cli.extracting import with_extractor
from ldmkit.errors import InputError, LdmkitError, shown
from ldmkit.files.json import parse_json
from ldmkit.files.reading import check_ordinary

if TYPE_CHECKING:
    from ldmkit.cascade import Cascade
    from ldmkit.contracts.extractor import Extractor
    from ldmkit.pipeline import Pipeline
    from ldmkit.run.output import Output

LONGEST = 2**22
"""Characters of a line: a picture in it is a data URI."""

SAME = (
    *("spec", "steps", "size", "start", "sampler", "grid", "guidance", "cache", "inputs", "negative", "seed"),
    *("fused", "placed", "updates", "load", "plan", "parts", "weights"),
)
"""Of a recipe, what a picture that is there already must have for the request not to be drawn again."""


def check_prompts(path: Path) -> None:
    """Refuse what is no file of prompts.

    Raises:
        InputError: `not-found` and its like; `prompts-type`: another ending.
    """
    check_ordinary(path, InputError)
    if path.suffix.lower() not in (".jsonl", ".txt"):
        fits = ".jsonl (an object a line: inputs and other arguments), or .txt (a text a line)"
        raise InputError("prompts-type", f"the ending {path.suffix!r} is neither", where=str(path), fits=fits)


def text_input(pipeline: Pipeline | Cascade) -> str:
    """The input that a line of a .txt file is: `text`, or the first where there is none of that name."""
    names = pipeline.inputs
    return "text" if "text" in names else next(iter(names), "text")


def requests_of(
    path: Path,
    pipeline: Pipeline | Cascade,
    given: Mapping[str, Any],
    seed: int,
    extractors: Mapping[str, Extractor] | None = None,
) -> Iterator[Any]:
    """One request of `Pipeline.many` a line; lines that cannot be read are handed on as they are, and refused there.

    Args:
        given: inputs of all lines that do not say.
        seed: of the first line, rising from line to line where a line does not say.
        extractors: of inputs in lines that do not say how they are extracted.
    """
    names, text = pipeline.inputs, text_input(pipeline)
    for number, line in enumerate(_lines(path)):
        if path.suffix.lower() == ".txt":
            yield {"inputs": {**given, text: line.rstrip("\r\n")}, "seed": seed + number}
            continue
        try:
            if len(line) > LONGEST:
                raise InputError("prompts-line", f"a line of {len(line)} characters", fits=f"at most {LONGEST}")
            read = parse_json(line, f"{path}:{number + 1}")
        except LdmkitError as error:
            yield error
            continue
        try:
            request = _request(read, names, given, seed + number, f"{path}:{number + 1}")
        except InputError as error:
            yield error
            continue
        own = {name: with_extractor(extractors or {}, name, value) for name, value in request["inputs"].items()}
        yield {**request, "inputs": own}


def requests_of_call(given: Mapping[str, Any], options: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[Any]:
    """One request a seed of what would be one call; starts and negatives that are lists are dealt out.

    Raises:
        InputError: `batch-mismatch`: there are not as many as seeds.
    """
    dealt = {name: options[name] for name in ("start", "negative") if isinstance(options.get(name), list)}
    for name, rows in dealt.items():
        if len(rows) not in (1, len(seeds)):
            what, fits = f"{len(rows)} of them for {len(seeds)} pictures", "one, or one for each picture"
            raise InputError("batch-mismatch", what, where=f"--{name}", fits=fits)
    return (
        {"inputs": given, "seed": seed, **{name: rows[i % len(rows)] for name, rows in dealt.items()}}
        for i, seed in enumerate(seeds)
    )


def check_lines(prompts: Path, number: int, given: Mapping[str, Any], options: Mapping[str, Any], text: str) -> None:
    """Refuse options that say nothing beside a file of prompts, each line of which is one picture.

    Args:
        text: the input that a line of a .txt file is.

    Raises:
        InputError: `option-conflict`.
    """
    lists = [name for name in ("start", "negative") if isinstance(options.get(name), list) and len(options[name]) > 1]
    line = "draws one picture a line"
    refused = {
        "--number": (number > 1, "a line for each picture"),
        f"--{text}": (prompts.suffix.lower() == ".txt" and text in given, "the file alone, or .jsonl"),
        **{f"--{name}": (True, f"one; others in the lines of a .jsonl, as {name!r}") for name in lists},
    }
    for option, (wrong, fits) in refused.items():
        if wrong:
            raise InputError("option-conflict", f"--prompts {prompts.name} {line}", where=option, fits=fits)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, none of them held longer than it is asked for.

    Raises:
        InputError: `not-utf8`.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from lines
    except UnicodeDecodeError as problem:
        raise InputError("not-utf8", f"no UTF-8 text: {problem.reason}", where=str(path), fits="UTF-8") from None


def _request(read: object, names: Mapping[str, Any], given: Mapping[str, Any], seed: int, where: str) -> dict[str, Any]:
    """A line's object as a request: the model's inputs may stand beside the other arguments.

    Raises:
        InputError: `prompts-line`: no object, or inputs that are none; `argument-twice`: an input in both places.
    """
    fits = 'an object: {"text": "a red house", "seed": 5}'
    if not isinstance(read, dict):
        raise InputError("prompts-line", f"got {shown(read)}", where=where, fits=fits)
    inputs = read.get("inputs", {})
    if not isinstance(inputs, dict):
        raise InputError("prompts-line", f"inputs are {shown(inputs)}", where=where, fits=fits)
    if twice := [name for name in read if name in inputs and name in names]:
        what = f"{twice[0]!r} stands beside `inputs` and in it"
        raise InputError("argument-twice", what, where=where, fits="one of the two")
    own = {key: value for key, value in read.items() if key in names and key != "inputs"}
    rest = {key: value for key, value in read.items() if key not in own}
    seeded = {} if "seeds" in rest else {"seed": seed}
    return {**seeded, **rest, "inputs": {**given, **inputs, **own}}


def is_folder(out: Path) -> bool:
    """Whether pictures go into a folder of that name, which is made where it is not there."""
    return out.is_dir() or not out.suffix


@dataclass
class Series:
    """What becomes of many requests: files written (`indices`: of whose requests), files that were there, errors.

    Args:
        weights: what the model's weights are; the pictures' recipes say it, and those that are there must say the same.
    """

    out: Path
    overwrite: bool
    suffix: str
    weights: str | None = None
    paths: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    present: int = 0
    failed: list[tuple[int, LdmkitError]] = field(default_factory=list)

    @property
    def into_folder(self) -> bool:
        """Whether files are named by their number, 000000.png ..., and those that are there are not drawn again."""
        return is_folder(self.out)

    def file(self, index: int) -> Path:
        """Where the picture of a request goes, in a folder."""
        return self.out / f"{index:06d}{self.suffix}"

    def is_there(self, index: int, request: Any, pipeline: Pipeline | Cascade, common: Mapping[str, Any]) -> bool:
        """Whether the picture of a request was drawn before.

        Raises:
            InputError: `other-output`: the file that has its name is of another request.
        """
        from ldmkit.run.many import call_of
        from ldmkit.run.recipe import calls_of, read_recipe

        path = self.file(index)
        if self.overwrite or not path.exists():
            return False
        inputs, options = call_of(request, common, str(path))
        wanted, found = json.loads(json.dumps(pipeline.recipe(inputs, **options))), read_recipe(path)
        wanted["weights"] = self.weights
        pairs = [
            (found, wanted),
            *((call, calls_of(wanted).get(name, {})) for name, call in calls_of(found).items() if name),
        ]
        other = next((key for its, one in pairs for key in SAME if its.get(key) != one.get(key)), None)
        if other is None and calls_of(found).keys() != calls_of(wanted).keys():
            other = "stages"
        if other is not None:
            what = f"the picture there was drawn with other {other}"
            raise InputError("other-output", what, where=str(path), fits="another folder, or --overwrite")
        return True

    def draw(
        self, pipeline: Pipeline | Cascade, requests: Iterator[Any], batch: int, common: Mapping[str, Any]
    ) -> None:
        """Draw the requests whose pictures are not there, and write each as it comes."""
        from tqdm import tqdm

        numbers: dict[int, int] = {}
        asked = count()

        def wanted() -> Iterator[Any]:
            for index, request in enumerate(requests):
                try:
                    if isinstance(request, LdmkitError):
                        raise request
                    if self.into_folder and self.is_there(index, request, pipeline, common):
                        self.present += 1
                        continue
                except LdmkitError as error:
                    self.failed.append((index, error))
                    continue
                numbers[next(asked)] = index
                yield request

        following = 0
        for drawn in tqdm(pipeline.many(wanted(), batch=batch, **common), unit="picture", disable=None, leave=False):
            index = numbers.pop(drawn.index)
            if drawn.output is None:
                assert drawn.error is not None
                self.failed.append((index, drawn.error))
                continue
            if self.into_folder:
                written = self._with_weights(drawn.output).save(self.file(index), overwrite=self.overwrite)
            else:
                written = drawn.output.save(self.out, overwrite=self.overwrite, first=max(following, index))
                following = int(written[0].stem.rpartition("-")[2]) + 1
            self.paths.append(str(written[0]))
            self.indices.append(index)

    def _with_weights(self, output: Output) -> Output:
        recipes = tuple({**recipe, "weights": self.weights} for recipe in output.recipes)
        return replace(output, write_recipes=lambda: recipes)
