"""`precision: auto` takes what the device has, and an explicit choice that it lacks is said."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from ldmkit_training.before.plan import make_plan
from ldmkit_training.loop import devices
from ldmkit_training.loop.devices import arithmetic, autocast

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["bf16", "no-bf16"])
def has(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: request.param)
    return bool(request.param)


def test_auto_in_the_plan_and_in_the_step(has: bool, tmp_path: Path) -> None:
    chosen = "bfloat16" if has else "float32"
    with autocast("auto", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, chosen)
    plan = make_plan(tiny.denoiser_recipe(tmp_path, "precision=auto"), tmp_path)
    assert plan.precision == chosen
    reason = f"this CPU has {'' if has else 'no '}instructions for "
    assert plan.notes[0].startswith(f"precision auto is {chosen}: {reason}")


def test_an_explicit_bfloat16_that_the_device_lacks_is_a_warning(
    has: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    plan = make_plan(tiny.denoiser_recipe(tmp_path, "precision=bfloat16"), tmp_path)
    said = [str(warning.message) for warning in recwarn if "no instructions" in str(warning.message)]
    assert plan.precision == "bfloat16" and len(said) == (not has)
    assert has or "precision: auto" in said[0]


def test_float32_is_never_changed(has: bool) -> None:
    assert arithmetic("float32", CPU) == ("float32", "", False)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="the masks are those of x86")
def test_a_cpu_without_the_instructions_is_known() -> None:
    code = (
        "import torch; from ldmkit_training.loop.devices import has_bfloat16; print(has_bfloat16(torch.device('cpu')))"
    )
    masked = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    run = subprocess.run([sys.executable, "-c", code], env=masked, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
