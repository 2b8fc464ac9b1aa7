"""Two processes that write pictures into one folder at once: nobody's picture is lost, whatever the names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ldmkit.run.recipe import read_recipe

EACH = 12
WRITER = """
import sys
from pathlib import Path
import torch
from ldmkit.run.output import Output
who, folder, count, overwrite = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "overwrite"
recipe = {"recipe": 1, "steps": 1, "seed": 0, "parts": {}, "inputs": {}, "negative": {}, "sampler": {}, "grid": {},
          "guidance": {}, "model": None, "start": None, "spec": "", "size": [8, 8], "load": {}}
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[5])):
    images = torch.full((count, 3, 8, 8), who / 255)
    made = Output(images, images, lambda: tuple({**recipe, "seed": 1000 * who + count * i + j} for j in range(count)))
    print(*[path.name for path in made.save(folder / "a.png", overwrite=overwrite)], flush=True)
"""


def together(folder: Path, count: int, mode: str) -> list[list[str]]:
    """Names that two writers report; both are ready before either begins."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(who), str(folder), str(count), mode, str(EACH)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for who in (1, 2)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    return said


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_overwritten(tmp_path: Path, count: int) -> None:
    (tmp_path / "a-4.png").write_bytes(b"mine")  # a gap in the numbers is not filled over
    first, second = together(tmp_path, count, "keep")
    assert len(first) == len(second) == EACH * count
    assert len({*first, *second}) == 2 * EACH * count and "a-4.png" not in {*first, *second}
    for who, names in ((1, first), (2, second)):
        for number, name in enumerate(names):
            assert Image.open(tmp_path / name).getpixel((0, 0)) == (who, who, who)
            assert read_recipe(tmp_path / name)["seed"] == 1000 * who + number
    assert (tmp_path / "a-4.png").read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {*first, *second, "a-4.png"}


def test_overwriting_leaves_whole_pictures(tmp_path: Path) -> None:
    """The last one wins; what is there is always one picture as a whole, and nothing half written stays."""
    first, second = together(tmp_path, 1, "overwrite")
    assert {*first, *second} == {"a.png"} == {path.name for path in tmp_path.iterdir()}
    pixel = Image.open(tmp_path / "a.png").getpixel((7, 7))
    assert pixel in ((1, 1, 1), (2, 2, 2)) and read_recipe(tmp_path / "a.png")["seed"] // 1000 == pixel[0]
