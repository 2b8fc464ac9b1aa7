"""A wrong argument is told before torch is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

WRONG = [
    ("sample nowhere", "source.not-found"),
    ("sample --sampler eulr", "plugin.unknown"),
    ("sample --grid karas", "plugin.unknown"),
    ("sample --guidance lots", "plugin.unknown"),
    ("sample --guidance 2 --set label=3", "input.option-conflict"),
    ("sample --set label=much", "input.scale-type"),
    ("sample --size 8by8", "input.size-type"),
    ("sample --lable lake", "input.unknown-option"),
    ("sample --dtype int8", "input.dtype"),
    ("sample --config no.yaml", "source.not-found"),
    ("sample --start no.png", "input.picture-missing"),
    ("sample --start there.png --mask no.png", "input.picture-missing"),
    ("sample --mask there.png", "input.option-conflict"),
    ("sample --steps 0", "input.steps-range"),
    ("sample --steps ten", "input.usage"),
    ("sample --seed -1", "input.seed-range"),
    ("sample --seed 18446744073709551615 -n 2", "input.seed-range"),
    ("sample --size 0x8", "input.size-range"),
    ("sample --guidance nan", "input.guidance-range"),
    ("sample --set label=1e9", "input.guidance-range"),
    ("sample --out o.jpg", "input.not-png"),
    ("sample --out no/o.png", "input.no-folder"),
    ("encode miniworld no.png", "input.picture-missing"),
    ("encode nowhere there.png", "source.not-found"),
    ("decode nowhere z.safetensors", "source.not-found"),
    ("import nowhere --out model", "source.not-found"),
    ("export nowhere --out model", "source.not-found"),
    ("eval miniworld nowhere", "source.not-found"),
    ("demo --model nowhere", "source.not-found"),
    ("compare --model nowhere", "source.not-found"),
    ("compare --grid karas", "plugin.unknown"),
    ("compare --lable lake", "input.unknown-option"),
    ("compare --samplers eulr", "plugin.unknown"),
    ("compare --samplers euler,,ddim", "input.sampler-missing"),
    ("compare --steps 5,many", "input.steps-type"),
    ("replay no.png", "source.not-found"),
    ("replay there.png --dtype int8", "input.dtype"),
    ("train", "input.usage"),
    ("train no.yaml", "source.not-found"),
]

CHILD = """
import sys
from ldmkit.cli import main
sys.argv[0] = "ldmkit"
code = main()
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(("words", "code"), WRONG, ids=[words for words, _ in WRONG])
def test_told_before_torch_is_imported(words: str, code: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "there.png")
    done = subprocess.run([sys.executable, "-c", CHILD, *words.split()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (2, 3, 4), done.stderr
    *said, torch_there = done.stderr.splitlines()
    assert f"[{code}]" in said[-1]
    assert torch_there == "False"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.png"]
