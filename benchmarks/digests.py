"""What digests cost when a Stable Diffusion 1.5 folder is loaded, and how many flipped bits they find.

python benchmarks/digests.py [--rounds 7] [--flips 1000] [--folder /tmp/sd15]

The folder is written by diffusers with random weights, imported (4.3 GB of float32), and both are deleted afterwards.
Loads with `verify` "off", "fast" and "full" take turns in one process of one thread, files in the page cache;
`_cpu_s`: processor time of a load; `_touched_s`: the first number of every page of the denoiser's weights is read
afterwards, as a first run does.
`save_s`: writing the folder, digests and the disk included. Flips: of each, one random bit of one file of weights of
the bundled model, saved as a folder, header included; `found` counts the loads that were refused.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import write
from loading import write_folder

import ldmkit
from ldmkit.errors import LdmkitError

MODES: tuple[Any, ...] = ("off", "fast", "full")


def costs(work: Path, rounds: int, given: Path | None) -> dict[str, Any]:
    """Medians of loads that take turns."""
    folder = given or work / "sd15"
    if not (folder / "model_index.json").exists():
        write_folder(folder, None)
    pipe = ldmkit.load(folder)
    began = time.perf_counter()
    pipe.save(work / "saved")
    saving = time.perf_counter() - began
    del pipe
    size = sum(path.stat().st_size for path in (work / "saved").rglob("*.safetensors"))
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    busy: dict[str, list[float]] = {mode: [] for mode in MODES}
    touched: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds + 1):
        for mode in MODES:
            began, worked = time.perf_counter(), time.process_time()
            pipe = ldmkit.load(work / "saved", verify=mode)
            times[mode].append(time.perf_counter() - began)
            busy[mode].append(time.process_time() - worked)
            began = time.perf_counter()
            for parameter in pipe.denoiser.parameters():
                parameter.detach().view(-1)[::1024].sum()
            touched[mode].append(time.perf_counter() - began)
            del pipe
    row: dict[str, Any] = {"what": "load a saved SD 1.5 folder again", "bytes": size, "save_s": round(saving, 2)}
    for mode in MODES:
        row[f"{mode}_s"] = round(statistics.median(times[mode][1:]), 3)
        row[f"{mode}_cpu_s"] = round(statistics.median(busy[mode][1:]), 3)
        row[f"{mode}_touched_s"] = round(statistics.median(touched[mode][1:]), 3)
    return row


def flips(work: Path, count: int) -> dict[str, Any]:
    """How many of `count` flipped bits are found."""
    folder = ldmkit.load("miniworld").save(work / "miniworld")
    files = sorted(folder.rglob("*.safetensors"))
    sizes, draw = [path.stat().st_size for path in files], random.Random(0)
    found = dict.fromkeys(MODES, 0)
    for _ in range(count):
        path = draw.choices(files, sizes)[0]
        position, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
        good = path.read_bytes()
        path.write_bytes(good[:position] + bytes([good[position] ^ (1 << bit)]) + good[position + 1 :])
        for mode in MODES:
            try:
                ldmkit.load(folder, verify=mode)
            except LdmkitError:
                found[mode] += 1
        path.write_bytes(good)
    return {"what": "flipped bits", "flips": count, **{f"found_{mode}": found[mode] for mode in MODES}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="ldmkit-digests-"))
    try:
        rows = [flips(work, options.flips)]
        print(rows[0], flush=True)
        rows.append(costs(work, options.rounds, options.folder))
        print(rows[1], flush=True)
    finally:
        shutil.rmtree(work)
    write("digests", rows)


if __name__ == "__main__":
    main()
