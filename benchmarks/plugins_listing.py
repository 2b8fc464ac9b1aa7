"""What `ldmkit plugins` takes, without and with 50 third-party distributions beside it: processor time.

python benchmarks/plugins_listing.py [--rounds 9] [--plugins 50]

Processor time, which a busy machine does not stretch; the commands take turns; medians. An empty Python and
`ldmkit --help` (which builds the command line with Typer) stand beside it. In its rows, `imported` says whether the
listing imported torch or any plugin.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import write

LIMIT = 0.3
MODULE = """import ldmkit


class Steady(ldmkit.Sampler):
    '''Never imported here.'''

    def steps(self, denoise, x, sigmas, noise):
        yield from ()
"""
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "ldmkit plugins": ["-m", "ldmkit", "plugins"],
    "ldmkit plugins --json": ["-m", "ldmkit", "plugins", "--json"],
    "ldmkit --help": ["-m", "ldmkit", "--help"],
}
LOADED = "import json, sys; from ldmkit.cli import main; main(['plugins']); print(json.dumps([*sys.modules]))"


def write_plugins(site: Path, count: int) -> None:
    """Distributions with four entries each, as pip would have written them."""
    for i in range(count):
        (site / f"plugin_{i}.py").write_text(MODULE, encoding="utf-8")
        folder = site / f"plugin_{i}-1.{i}.dist-info"
        folder.mkdir()
        head = f"Metadata-Version: 2.4\nName: plugin-{i}\nVersion: 1.{i}\nRequires-Dist: ldmkit>=0.1\n"
        (folder / "METADATA").write_text(head + "\n" + "A page of description.\n" * 200, encoding="utf-8")
        groups = ("samplers", "grids", "guidance", "conditioners")
        points = "".join(f"[ldmkit.{group}]\nplugin-{i} = plugin_{i}:Steady\n" for group in groups)
        (folder / "entry_points.txt").write_text(points, encoding="utf-8")


def seconds(command: list[str], site: Path | None) -> float:
    """Processor time of one process, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, check=True, env=environment(site))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment(site: Path | None) -> dict[str, str]:
    """This one, with the plugins on the path or without."""
    return {**os.environ, "PYTHONPATH": "" if site is None else str(site)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--plugins", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_plugins(Path(folder), options.plugins)
        sites = {0: None, options.plugins: Path(folder)}
        times: dict[tuple[str, int], list[float]] = {(name, n): [] for name in COMMANDS for n in sites}
        for i in range(options.rounds + 1):
            for (name, n), kept in times.items():
                taken = seconds(COMMANDS[name], sites[n])
                if i:  # the first round writes the bytecode
                    kept.append(taken)
        done = subprocess.run(
            [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, env=environment(Path(folder))
        )
        modules = json.loads(done.stdout.splitlines()[-1])
    imported = sorted(
        m for m in modules if m.startswith("plugin_") or m.split(".")[0] in ("torch", "typer", "pydantic")
    )
    rows = [
        {"command": name, "plugins": n, "seconds": round(statistics.median(kept), 3), "rounds": len(kept)}
        for (name, n), kept in times.items()
    ]
    for row in rows:
        print(row)
    write("plugins_listing", rows, limit_seconds=LIMIT, imported=imported)


if __name__ == "__main__":
    main()
