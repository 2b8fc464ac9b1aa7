"""Sources that hold several pipelines: the stages of a cascade, and how they are wired."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from ldmkit.errors import SourceError
from ldmkit.models.cascade import CascadeSpec
from ldmkit.models.source import Source
from ldmkit.models.spec import PipelineSpec
from ldmkit.models.weights import LazyTensor


class CascadeSource(Source):
    """A source of a cascade: readers of formats return one for published models that are several pipelines.

    `stage` gives the source of each pipeline. Stages may read the same files; parts that the spec says are shared are
    read once.
    """

    @property
    @abstractmethod
    def cascade(self) -> CascadeSpec:
        """The stages in the order in which they run, and their wiring."""

    @abstractmethod
    def stage(self, name: str) -> Source:
        """The source of one stage; it reads no weights yet.

        Raises:
            SourceError: the stage is missing or is another one; the message names it.
        """

    @property
    def spec(self) -> PipelineSpec:
        what = f"it is a cascade of {', '.join(self.cascade.stages)}, not a single pipeline"
        fits = "ldmkit.Cascade.load, whose stages are pipelines"
        raise SourceError("cascade", what, where=self.origin, fits=fits)

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        raise AssertionError("its stages have the tensors")
