"""What all tests share: no network, one thread, and tiny real pipelines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fake_distributions
import pytest
import setuptools  # noqa: F401  before anything imports distutils, which it replaces: torch's compiler insists on that
import tiny_parts
import torch

import ldmkit
from ldmkit.plugins import catalogue

# before anything imports huggingface_hub, which reads it once; nothing above does
os.environ["HF_HUB_OFFLINE"] = "1"
# of the processes that tests start: two workers with two threads each would wait for one another
os.environ["OMP_NUM_THREADS"] = "1"
for _variable in ("LDMKIT_SAFE_MODE", "LDMKIT_PLUGINS_ALLOW", "LDMKIT_PLUGINS_DENY"):
    os.environ.pop(_variable, None)

torch.set_num_threads(1)

# a shell starts its background jobs with Ctrl-C ignored, which Python then leaves so
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def class_pipe() -> ldmkit.Pipeline:
    """Class-conditional, pixels of 8x8. Shared by all tests: nobody may change it."""
    return tiny_parts.class_pipeline()


@pytest.fixture(scope="session")
def kl_pipe() -> ldmkit.Pipeline:
    """Class-conditional, latents of a KL codec of factor 4, pictures of 16x16."""
    return tiny_parts.class_pipeline("kl")


@pytest.fixture(scope="session")
def scene_pipe() -> ldmkit.Pipeline:
    """Layout, class and semantic map."""
    return tiny_parts.scene_pipeline()


@pytest.fixture(scope="session")
def class_folder(class_pipe: ldmkit.Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class-conditional pipeline as a saved folder; copy it before changing anything in it."""
    return class_pipe.save(tmp_path_factory.mktemp("saved") / "class")


@pytest.fixture(scope="session")
def scene_folder(scene_pipe: ldmkit.Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout and semantic pipeline as a saved folder."""
    return scene_pipe.save(tmp_path_factory.mktemp("saved") / "scene")


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_distributions.Distribution]:
    """See `fake_distributions.Distribution`."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    yield partial(fake_distributions.write, site)
    monkeypatch.undo()
    catalogue.refresh()
