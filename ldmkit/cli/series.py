"""Drawing many pictures on the command line: requests from a prompts file, or from one call with many seeds."""

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
"""Maximum number of characters of a line, which may contain pictures as data URIs."""

SAME = (
    *("spec", "steps", "size", "start", "sampler", "grid", "guidance", "cache", "inputs", "negative", "seed"),
    *("fused", "placed", "updates", "load", "plan", "parts", "weights"),
)
"""Recipe fields in which an existing picture must agree with a request for the request to be skipped."""


def check_prompts(path: Path) -> None:
    """Check that a path is a prompts file.

    Raises:
        InputError: `not-found` and the like; `prompts-type`: another suffix.
    """
    check_ordinary(path, InputError)
    if path.suffix.lower() not in (".jsonl", ".txt"):
        fits = ".jsonl (one object per line: inputs and other arguments), or .txt (one text per line)"
        raise InputError("prompts-type", f"got the suffix {path.suffix!r}", where=str(path), fits=fits)


def text_input(pipeline: Pipeline | Cascade) -> str:
    """The input that lines of a .txt file are given to: `text`, or the first input if there is no `text`."""
    names = pipeline.inputs
    return "text" if "text" in names else next(iter(names), "text")


def requests_of(
    path: Path,
    pipeline: Pipeline | Cascade,
    given: Mapping[str, Any],
    seed: int,
    extractors: Mapping[str, Extractor] | None = None,
) -> Iterator[Any]:
    """One request of `Pipeline.many` per line; invalid lines are passed on unchanged, and refused there.

    Args:
        given: inputs of lines without their own.
        seed: seed of the first line; increases by one per line, for lines without their own.
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
    """One request per seed of a call; lists of starts and negatives are distributed over the requests.

    Raises:
        InputError: `batch-mismatch`: a list's length differs from the number of seeds.
    """
    dealt = {name: options[name] for name in ("start", "negative") if isinstance(options.get(name), list)}
    for name, rows in dealt.items():
        if len(rows) not in (1, len(seeds)):
            what, fits = f"{len(rows)} of them for {len(seeds)} pictures", "one, or one per picture"
            raise InputError("batch-mismatch", what, where=f"--{name}", fits=fits)
    return (
        {"inputs": given, "seed": seed, **{name: rows[i % len(rows)] for name, rows in dealt.items()}}
        for i, seed in enumerate(seeds)
    )


def check_lines(prompts: Path, number: int, given: Mapping[str, Any], options: Mapping[str, Any], text: str) -> None:
    """Refuse options that have no meaning with a prompts file, each line of which is one picture.

    Args:
        text: the input that lines of a .txt file are given to.

    Raises:
        InputError: `option-conflict`.
    """
    lists = [name for name in ("start", "negative") if isinstance(options.get(name), list) and len(options[name]) > 1]
    line = "draws one picture per line"
    refused = {
        "--number": (number > 1, "one line per picture"),
        f"--{text}": (prompts.suffix.lower() == ".txt" and text in given, "only the file, or .jsonl"),
        **{f"--{name}": (True, f"a single one, or {name!r} in the lines of a .jsonl") for name in lists},
    }
    for option, (wrong, fits) in refused.items():
        if wrong:
            raise InputError("option-conflict", f"--prompts {prompts.name} {line}", where=option, fits=fits)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, read one by one.

    Raises:
        InputError: `not-utf8`.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from lines
    except UnicodeDecodeError as problem:
        raise InputError("not-utf8", f"not UTF-8 text: {problem.reason}", where=str(path), fits="UTF-8") from None


def _request(read: object, names: Mapping[str, Any], given: Mapping[str, Any], seed: int, where: str) -> dict[str, Any]:
    """A line's object as a request: the model's inputs may be given at the top level or under `inputs`.

    Raises:
        InputError: `prompts-line`: the line or its `inputs` are not an object; `argument-twice`: an input is given in
            both places.
    """
    fits = 'an object: {"text": "a red house", "seed": 5}'
    if not isinstance(read, dict):
        raise InputError("prompts-line", f"got {shown(read)}", where=where, fits=fits)
    inputs = read.get("inputs", {})
    if not isinstance(inputs, dict):
        raise InputError("prompts-line", f"inputs are {shown(inputs)}", where=where, fits=fits)
    if twice := [name for name in read if name in inputs and name in names]:
        what = f"{twice[0]!r} is given both at the top level and under `inputs`"
        raise InputError("argument-twice", what, where=where, fits="one of the two")
    own = {key: value for key, value in read.items() if key in names and key != "inputs"}
    rest = {key: value for key, value in read.items() if key not in own}
    seeded = {} if "seeds" in rest else {"seed": seed}
    return {**seeded, **rest, "inputs": {**given, **inputs, **own}}


def is_folder(out: Path) -> bool:
    """Whether `out` is a folder for pictures, which is created if it does not exist."""
    return out.is_dir() or not out.suffix


@dataclass
class Series:
    """Writes the pictures of requests; records written files (`indices`: of their requests), existing files, errors.

    Args:
        weights: digest of the model's weights, stored in recipes; existing pictures must have the same digest.
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
        """Whether files are numbered, 000000.png ..., and existing ones are not drawn again."""
        return is_folder(self.out)

    def file(self, index: int) -> Path:
        """The file of a request's picture, in a folder."""
        return self.out / f"{index:06d}{self.suffix}"

    def is_there(self, index: int, request: Any, pipeline: Pipeline | Cascade, common: Mapping[str, Any]) -> bool:
        """Whether the picture of a request exists already.

        Raises:
            InputError: `other-output`: the existing file is of a different request.
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
            what = f"the existing picture was drawn with other {other}"
            raise InputError("other-output", what, where=str(path), fits="another folder, or --overwrite")
        return True

    def draw(
        self, pipeline: Pipeline | Cascade, requests: Iterator[Any], batch: int, common: Mapping[str, Any]
    ) -> None:
        """Draw the requests whose pictures do not exist, and write each when it is done."""
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
