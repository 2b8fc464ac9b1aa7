"""Whatever stands where an argument stands: it is used as it is meant, or refused with an error of ours.

Errors of a caller's own function (`on_step`) are the caller's, and pass through.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from cases_calls import Env
from hostile_calls import ARGUMENTS, Argument
from hostile_values import VALUES

import ldmkit

CALLABLE = {"on_step": {"class", "module of torch tensor"}, "run.on_step": {"class", "module of torch tensor"}}
"""Values that can be called, but not as that argument is: what they raise is theirs."""


def test_the_sweep_is_wide() -> None:
    assert len(VALUES) >= 100 and len({a.name for a in ARGUMENTS}) == len(ARGUMENTS) >= 100


@pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda argument: argument.name)
def test_it_is_taken_or_refused_by_name(
    argument: Argument, env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # texts are paths to some
    raw: dict[str, str] = {}
    taken = set()
    for name, make in VALUES.items():
        if name in CALLABLE.get(argument.name, ()):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                argument.act(env, make())
                taken.add(name)
            except ldmkit.LdmkitError as refusal:
                words = str(refusal)
                if not words.isprintable() or len(words) > 2000:
                    raw[name] = f"{len(words)} characters: {ascii(words)[:200]}"
            except Exception as other:  # what this test is after
                raw[name] = f"{type(other).__name__}: {ascii(other.args)[:200]}"
    assert not raw
    assert taken == argument.takes
