"""The contract kit from outside."""

from __future__ import annotations

from typing import assert_type

from ldmkit.testing import Report, check_conditioner, check_sampler
from typed_sample.brightness import Brightness
from typed_sample.churned import Churned


def reports() -> list[Report]:
    """One a part; `require` raises where a check failed."""
    conditioner = check_conditioner(Brightness)
    assert_type(conditioner, Report)
    assert_type(conditioner.ok, bool)
    return [conditioner.require(), check_sampler(Churned).require()]
