"""The suite of samplers; the checks themselves are in `sampler_conduct` and `sampler_laws`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit.contracts.example import Example
from ldmkit.contracts.sampler import Sampler
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import Report
from ldmkit.testing.sampler import conduct as conduct
from ldmkit.testing.sampler import laws as laws
from ldmkit.testing.sampler.runs import Subject


def subject(cls: type[Sampler], example: Example) -> Subject:
    """The subject of the checks: a sampler's class and one of its examples."""
    return Subject(cls.of(example.config))


def check_sampler(cls: type[Sampler], config: Mapping[str, Any] | None = None) -> Report:
    """Check a sampler with the given fields; None: with those of its examples."""
    return check_class("sampler", cls, None if config is None else Example(config))
