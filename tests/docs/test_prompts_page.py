"""The blocks of docs/prompts.md, run with a small random model in the place of a Stable Diffusion."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import torch
from code_blocks import blocks, commands
from safetensors.torch import save_file

from ldmkit.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "prompts.md"
sys.path.insert(0, str(ROOT / "tests" / "pipelines"))

import tiny_diffusers as tiny  # noqa: E402


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.saved(tiny.stable_diffusion(), tmp_path / "stable-diffusion")
    vectors = torch.randn(2, tiny.TEXT_WIDTH)
    torch.save({"string_to_param": {"*": vectors}, "name": "cat"}, "cat.pt")
    save_file({"emb_params": vectors}, "easynegative.safetensors")
    found = blocks(PAGE)
    exec("\n".join(block.body for block in found if block.language == "python"), {})
    for block in found:
        for command in commands(block.body) if block.language == "bash" else ():
            assert main(shlex.split(command)[1:]) == 0, command
