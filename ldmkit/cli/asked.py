"""Options of commands that draw: the model, how to read it, and what to draw, as given on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ldmkit.cli.prompting import AS_IT_STANDS, Prompting
from ldmkit.cli.words import chosen_guidance, conditions, negatives, parse_size, parse_strategy, words_of

if TYPE_CHECKING:
    from ldmkit.cascade import Cascade
    from ldmkit.contracts.extractor import Extractor
    from ldmkit.pipeline import Pipeline


@dataclass(frozen=True)
class Reading:
    """A model and how to read it; `model` None is the bundled one. The other fields are arguments of `ldmkit.load`."""

    model: str | None
    config: Path | None = None
    ema: bool | None = None
    variant: str | None = None
    device: str | None = None
    dtype: str | None = None
    verify: Literal["fast", "full", "off"] = "fast"

    def check(self) -> Path | None:
        """The model's path, found without importing torch; see `early.check_model`, also for errors."""
        from ldmkit.cli.early import check_model

        return check_model(self.model, self.config, self.dtype, self.verify)

    def load(self) -> Any:
        """Load the model, a `Pipeline` or a `Cascade`; errors as for `ldmkit.load`."""
        from ldmkit.loading import load_model

        return load_model(self._source(), **self._options())

    def pipeline(self) -> Pipeline:
        """Load the model, which must not be a cascade; errors as for `Pipeline.load`."""
        from ldmkit.pipeline import Pipeline

        return Pipeline.load(self._source(), **self._options())

    def _source(self) -> str:
        from ldmkit.models.locate import default_model

        return default_model() if self.model is None else self.model

    def _options(self) -> dict[str, Any]:
        names = ("config", "ema", "variant", "device", "dtype", "verify")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Drawing:
    """What to draw.

    Args:
        words: options for the model's inputs, and `name=scale` pairs.
        scales: more `name=scale` pairs.
        negative: `name=value` pairs to move away from.
        others: options that are passed unchanged, by their names in `Pipeline.prepare`.
        extract: extractors of inputs, `canny` or `edges=canny:low=50`.
        lines: whether inputs may also stand in a file of prompts.
        prompting: how texts are read.
    """

    words: Sequence[str]
    size: str | None
    grid: str | None
    guidance: str | None
    scales: Sequence[str] | None
    negative: Sequence[str] | None
    others: Mapping[str, Any]
    extract: Sequence[str] = ()
    lines: bool = False
    prompting: Prompting = AS_IT_STANDS

    def check(
        self,
        folder: Path | None,
        samplers: Sequence[str | None],
        pictures: Mapping[str, Sequence[Path]],
        cache: str | None = None,
    ) -> None:
        """Check as much as possible before the model in `folder` is loaded; errors as for `early.check_call`."""
        from ldmkit.cli.early import check_call
        from ldmkit.cli.extracting import extractor_name, parse_extract
        from ldmkit.plugins.catalogue import find

        for one in self.extract:
            find("extractor", extractor_name(parse_extract(one)[1]))
        check_call(
            folder, self.words, size=self.size, guidance=self.guidance, scales=self.scales or [], pictures=pictures,
            strategies=[("grid", self.grid), ("cache", cache), *(("sampler", sampler) for sampler in samplers)],
        )  # fmt: skip

    def extractors(self, pipeline: Pipeline | Cascade) -> dict[str, Extractor]:
        """Input -> its extractor. Raises what `extracting.extractors_of` raises."""
        from ldmkit.cli.extracting import extractors_of

        named = [name for name, _ in words_of(self.words) if name is not None]
        return extractors_of(self.extract, pipeline, named, self.lines)

    def call(self, pipeline: Pipeline | Cascade) -> tuple[dict[str, Any], dict[str, Any]]:
        """(inputs, other arguments) of `Pipeline.prepare`.

        Raises:
            InputError: the model does not have an option, or does not accept its value.
        """
        given, pairs = conditions(pipeline, self.words, self.extractors(pipeline))
        self.prompting.check(pipeline)
        given = self.prompting.of(pipeline, given)
        options: dict[str, Any] = {
            "negative": self.prompting.negatives(pipeline, negatives(pipeline, self.negative or [])),
            "size": parse_size(self.size),
            "grid": parse_strategy(self.grid, "--grid"),
            "guidance": chosen_guidance(self.guidance, [*(self.scales or []), *pairs]),
        }
        return given, {**options, **self.others}
