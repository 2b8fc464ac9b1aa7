"""`--syntax`, `--clip-skip` and `--long`: how the texts of a command are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ldmkit.errors import InputError

if TYPE_CHECKING:
    from ldmkit.cascade import Cascade
    from ldmkit.pipeline import Pipeline


@dataclass(frozen=True)
class Prompting:
    """The options that were given; None: not given. `clip_skip` is for what is asked for, not for negatives."""

    syntax: str | None = None
    clip_skip: int | None = None
    long: bool | None = None

    def given(self, *, negative: bool = False) -> dict[str, Any]:
        """Those for inputs, or for negatives."""
        named = {"syntax": self.syntax, "clip_skip": None if negative else self.clip_skip, "long": self.long}
        return {name: value for name, value in named.items() if value is not None}

    def check(self, pipeline: Pipeline | Cascade) -> None:
        """Refuse options that no input of the model takes.

        Raises:
            InputError: `unknown-option`.
        """
        from ldmkit.run.prompting import check_text_options

        if not check_text_options(pipeline.inputs, self.given()):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in self.given())
            what = f"no input of this model is a text that is read with {options}"
            raise InputError("unknown-option", what, fits="a model with a CLIP text encoder; or the text as it stands")

    def of(self, pipeline: Pipeline | Cascade, row: Mapping[str, Any], *, negative: bool = False) -> dict[str, Any]:
        """Inputs with the options in their texts."""
        from ldmkit.run.prompting import with_text_options

        return with_text_options(pipeline.inputs, row, self.given(negative=negative))

    def negatives(self, pipeline: Pipeline | Cascade, rows: Any) -> Any:
        """One mapping of negatives, or a list of them, with the options in their texts."""
        if isinstance(rows, list):
            return [self.negatives(pipeline, row) for row in rows]
        return self.of(pipeline, rows, negative=True) if isinstance(rows, Mapping) else rows

    def requests(self, pipeline: Pipeline | Cascade, requests: Iterable[Any]) -> Iterator[Any]:
        """Requests of a series with the options in their texts; errors among them are handed on."""
        for request in requests:
            if not isinstance(request, Mapping) or not isinstance(request.get("inputs"), Mapping):
                yield request
                continue
            own = {"inputs": self.of(pipeline, request["inputs"])}
            if request.get("negative") is not None:
                own["negative"] = self.negatives(pipeline, request["negative"])
            yield {**request, **own}


AS_IT_STANDS = Prompting()
"""No option was given."""
