"""Loading a model imports no compiler: torch's, and the computer algebra under it, take seconds that nobody asked for.

Arithmetic, and random draws outside `torch.nn.init`, on tensors of the meta device import both.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ldmkit.models.locate import bundled_models
from ldmkit.models.meta import on_meta

ROOT = Path(__file__).parents[1]
GOLDENS = sorted(path.parent.name for path in (ROOT / "goldens").glob("*/config.yaml"))

LOADED = """
import sys
import ldmkit
source, *config = sys.argv[1:]
load = ldmkit.load_codec if "first_stage" in source else ldmkit.load
load(source, config=config[0] if config else None)
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""

BUILT = """
import sys
import torch
import ldmkit
from ldmkit.models.meta import on_meta
from ldmkit.plugins.catalogue import catalogue
for entry in catalogue():
    if entry.name == "t5-text":
        continue  # transformers' T5 imports torch's compiler itself
    if entry.kind in ("codec", "denoiser", "conditioner", "adapter", "classifier") and entry.dist == "ldmkit":
        part = ldmkit.get(entry.kind, entry.name)
        for example in part.examples:
            with on_meta():
                part(example.config)
            if "torch._dynamo" in sys.modules:
                sys.exit(f"{entry.kind} {entry.name} {example.config}")
"""


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, "-c", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_a_bundled_model(name: str) -> None:
    assert run(LOADED, name) == "[]"


@pytest.mark.parametrize("name", GOLDENS)
def test_an_original_checkpoint(name: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "parity"))
    try:
        from test_checkpoints_golden import written  # its cached tensors are this process's, the child loads the file
    finally:
        sys.path.remove(str(ROOT / "parity"))
    path = written(name, tmp_path, ".ckpt")
    assert run(LOADED, str(path.rename(tmp_path / f"{name}.ckpt")), str(tmp_path / "config.yaml")) == "[]"


def test_every_part_is_built_on_the_meta_device_without_a_compiler() -> None:
    assert run(BUILT) == ""


def test_draws_on_the_meta_device_are_shapes() -> None:
    with on_meta():
        drawn = [torch.randn(2, 3), torch.rand(2, 3, generator=None), torch.randn_like(torch.empty(2, 3))]
        real = torch.randn(2, device="cpu")
    assert all(tensor.is_meta and tensor.shape == (2, 3) for tensor in drawn)
    assert real.device.type == "cpu" and real.abs().sum() > 0
