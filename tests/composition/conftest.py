"""What the tests of bad input share: pipelines, and a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_parts
from cases_calls import Env

import ldmkit


@pytest.fixture(scope="session")
def text_pipe() -> ldmkit.Pipeline:
    """Reads prompts of letters, eight tokens at most."""
    config = {"vocab_size": 30, "dim": 8, "layers": 1, "heads": 1, "head_dim": 8, "max_length": 8}
    special = {"start": 2, "end": 3, "pad": 0}
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3),
        process=ldmkit.get("process", "discrete")(),
        conditioners={"text": tiny_parts.part("conditioner", "ldm-text", {**config, **special})},
        defaults={"size": (8, 8), "steps": 2},
    )


@pytest.fixture
def env(
    tmp_path: Path,
    class_pipe: ldmkit.Pipeline,
    kl_pipe: ldmkit.Pipeline,
    scene_pipe: ldmkit.Pipeline,
    text_pipe: ldmkit.Pipeline,
    class_folder: Path,
    scene_folder: Path,
) -> Env:
    return Env(tmp_path, class_pipe, kl_pipe, scene_pipe, text_pipe, class_folder, scene_folder)
