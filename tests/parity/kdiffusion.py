"""k-diffusion's samplers, from an installation without its dependencies.

The package imports torchvision, kornia, wandb and more when it is imported; its file of samplers needs torch, scipy,
torchdiffeq, torchsde and tqdm alone, and one function of a neighbour that reshapes a number. So that file is loaded by
itself: `pip install --no-deps k-diffusion==0.1.1.post1`, as .ci/run does. Where it is absent the tests are skipped.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib import metadata
from types import ModuleType

import pytest
from torch import Tensor

NEEDED = ("scipy", "torchdiffeq", "torchsde", "tqdm")


@cache
def samplers() -> ModuleType:
    """The module; skips the test where it is not installed."""
    try:
        path = metadata.distribution("k-diffusion").locate_file("k_diffusion/sampling.py")
    except metadata.PackageNotFoundError:
        pytest.skip("k-diffusion is not installed: pip install --no-deps k-diffusion==0.1.1.post1")
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"k-diffusion's samplers need {', '.join(absent)}")
    package, utils = ModuleType("k_samplers"), ModuleType("k_samplers.utils")
    package.__path__ = []
    utils.append_dims = _append_dims  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("k_samplers.sampling", str(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.update({"k_samplers": package, "k_samplers.utils": utils, spec.name: module})
    spec.loader.exec_module(module)
    return module


def _append_dims(values: Tensor, rank: int) -> Tensor:
    return values.view(*values.shape, *[1] * (rank - values.ndim))
