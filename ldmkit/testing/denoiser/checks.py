"""The contract of denoisers: their input and slots, their ports, and runs.

The kit's denoisers have random weights, none of them zero, and get random conditions in every slot. Checks named `meta`
and after are those that all modules share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.example import Example
from ldmkit.testing.cases import check_class
from ldmkit.testing.checks import Report, check
from ldmkit.testing.denoiser import gates as gates
from ldmkit.testing.denoiser import inputs as inputs
from ldmkit.testing.denoiser import ports as ports
from ldmkit.testing.denoiser import runs as runs
from ldmkit.testing.denoiser.subject import DenoiserSubject
from ldmkit.testing.modules import share
from ldmkit.testing.placing import placed

share("denoiser")
check("denoiser", "placed")(placed)


def subject(cls: type[Any], example: Example) -> DenoiserSubject:
    """The subject of the checks: a class and one of its examples."""
    return DenoiserSubject(cls, example.config, example.trained)


def check_denoiser(cls: type[Denoiser], config: Mapping[str, Any] | None = None) -> Report:
    """Run all checks of a denoiser.

    Args:
        config: its config; None: those of its examples.
    """
    return check_class("denoiser", cls, None if config is None else Example(config))
