"""`pytest --ldmkit NAME`: items for each part, example and check, readable failures, alone and beside other tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_distributions import Distribution
from test_discovery import BAD, GOOD

from ldmkit.testing.checks import checks

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module", autouse=True)
def _meta_kernels() -> None:
    """pytester forgets modules that are imported inside of it; torch's meta kernels cannot be imported twice."""
    empty = torch.empty(2, device="meta")
    torch.tanh(empty + empty)
    assert "torch._decomp" in sys.modules


def test_items_and_failures(pytester: pytest.Pytester, distribution: Distribution) -> None:
    distribution("my-parts", BAD)
    found = pytester.runpytest_inprocess("--ldmkit", "my_parts", "-v", "-p", "no:xdist")
    text = found.stdout.str()
    assert "ldmkit:my-parts::conditioner:palette::part-docstring PASSED" in text
    assert "ldmkit:my-parts::conditioner:palette[0]::null-shape PASSED" in text
    assert "ldmkit:my-parts::conditioner:bent[0]::signal FAILED" in text
    assert "ldmkit:my-parts::sampler:gone::part-loads FAILED" in text and "sampler:gone[0]" not in text
    assert "expected: the signal: dim 7, as declared" in text
    assert "got:      6, shape" in text
    assert "see:      docs/contracts.md#conditioner-signal" in text
    assert "no module named 'no_such_module'" in text
    assert found.ret == pytest.ExitCode.TESTS_FAILED


def test_beside_other_tests_and_by_keyword(pytester: pytest.Pytester, distribution: Distribution) -> None:
    distribution("my-parts", GOOD)
    pytester.makepyfile("def test_mine():\n    pass\n")
    arguments = ("--ldmkit", "my-parts", "--ldmkit", "conditioner:palette", "-p", "no:xdist", "-k", "mine or null")
    outcomes = pytester.runpytest_inprocess(*arguments, ".").parseoutcomes()
    there = 1 + len(checks("part")) + len(checks("conditioner"))
    assert (outcomes["passed"], outcomes["deselected"]) == (3, there - 3)


def test_typed_without_paths_it_leaves_the_tests_of_the_folder_alone(
    pytester: pytest.Pytester, distribution: Distribution
) -> None:
    """Where a README is followed lies a project's whole suite; a configuration that names the kit adds to that."""
    distribution("my-parts", GOOD)
    pytester.makepyfile("def test_mine():\n    assert False\n")
    arguments = ("-p", "no:xdist", "-k", "mine or null")
    outcomes = pytester.runpytest_inprocess("--ldmkit", "my-parts", *arguments).parseoutcomes()
    assert outcomes["passed"] == 2 and "failed" not in outcomes
    pytester.makeini("[pytest]\naddopts = --ldmkit my-parts")
    outcomes = pytester.runpytest_inprocess(*arguments).parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (2, 1)


def test_a_crash_inside_a_part_shows_where(pytester: pytest.Pytester, distribution: Distribution) -> None:
    distribution("my-parts", "[ldmkit.conditioners]\nplain = broken_conditioner:JsonOnly\n")
    pytester.makeconftest(
        """
        import broken_conditioner

        def forward(self, inputs):
            return inputs.no_such_method()

        broken_conditioner.JsonOnly.forward = forward
        """
    )
    try:
        text = pytester.runpytest_inprocess("--ldmkit", "my-parts", "-p", "no:xdist", "-k", "signal").stdout.str()
    finally:
        import broken_conditioner

        if "forward" in vars(broken_conditioner.JsonOnly):  # pytester may have forgotten the patched module
            del broken_conditioner.JsonOnly.forward
    assert "conftest.py:4: AttributeError: 'list' object has no attribute 'no_such_method'" in text
    assert "return inputs.no_such_method()" in text


def test_unknown_distributions_are_a_usage_error(pytester: pytest.Pytester) -> None:
    found = pytester.runpytest_inprocess("--ldmkit", "nobodys-parts", "-p", "no:xdist")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert "no distribution and no part is called 'nobodys-parts'" in found.stderr.str()


def test_without_the_option_nothing_happens(pytester: pytest.Pytester) -> None:
    code = "import pytest, sys; code = pytest.main(['-q']); assert 'torch' not in sys.modules; sys.exit(code)"
    found = subprocess.run([sys.executable, "-c", code], cwd=pytester.path, capture_output=True, text=True)
    assert found.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, found.stdout + found.stderr


def test_with_xdist_in_a_folder_without_tests(tmp_path: Path, distribution: Distribution) -> None:
    site = distribution("my-parts", GOOD)
    empty = tmp_path / "empty"
    empty.mkdir()
    paths = os.pathsep.join([str(site), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--ldmkit", "my-parts", "-n", "1", "-q", "-k", "null or docstring"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 passed" in found.stdout
