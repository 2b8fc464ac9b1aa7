"""The suite of guidance: laws of its scale, honest costs, one batch, and no side effects."""

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
    """What the checks take, from guidance's class and one of its examples, whose `inputs` are names of conditions."""
    return Subject(cls.of(example.config), tuple(example.inputs))


def check_guidance(
    cls: type[Guidance], config: Mapping[str, Any] | None = None, *, names: Sequence[str] = ()
) -> Report:
    """Check guidance with these fields; with those of its examples where none are given.

    Args:
        names: conditions that it is for, where it is not for any.
    """
    return check_class("guidance", cls, None if config is None else Example(config, tuple(names)))
