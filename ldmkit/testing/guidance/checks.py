"""The contract of guidance: laws of its scale, declared costs, one batch, and no side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmkit.contracts.example import Example
from ldmkit.contracts.guidance import Guidance
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import Report
from ldmkit.testing.guidance import laws as laws

from ldmkit.testing.guidance import conduct as conduct  # isort: skip - the page has the checks in this order
from ldmkit.testing.guidance.model import Subject


def subject(cls: type[Guidance], example: Example) -> Subject:
    """The subject of the checks: guidance's class and one of its examples, whose `inputs` are names of conditions."""
    return Subject(cls.of(example.config), tuple(example.inputs))


def check_guidance(
    cls: type[Guidance], config: Mapping[str, Any] | None = None, *, names: Sequence[str] = ()
) -> Report:
    """Check guidance with the given fields; None: with those of its examples.

    Args:
        names: names of the conditions that it is for, unless it works with any.
    """
    return check_class("guidance", cls, None if config is None else Example(config, tuple(names)))
