"""What the benchmarks share: paired alternating timing, the machine, and results as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def paired(functions: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every call, the functions taking turns, so that a slow moment hits all of them alike."""
    for _ in range(warmup):
        for function in functions.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - began)
    return times


def summary(times: Mapping[str, Sequence[float]], base: str) -> dict[str, dict[str, float]]:
    """Median milliseconds, and the median of the ratios base / this over the rounds (above 1: faster than base)."""
    return {
        name: {
            "ms": round(statistics.median(values) * 1e3, 4),
            "speedup": round(statistics.median(b / v for b, v in zip(times[base], values, strict=True)), 3),
        }
        for name, values in times.items()
    }


def over(times: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """The median of the ratios this / base over the rounds (above 1: slower than base)."""
    return round(statistics.median(a / b for a, b in zip(times[name], times[base], strict=True)), 3)


def deviation(got: torch.Tensor, want: torch.Tensor) -> float:
    """max |got - want| / max |want|."""
    return float((got.double() - want.double()).abs().max() / want.double().abs().max())


def write(name: str, rows: Any, **more: Any) -> Path:
    """benchmarks/results/<name>.json: the rows with the machine, versions and the command."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"benchmark": name, "command": _command(), "machine": machine(), **more, "rows": rows}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


def machine() -> dict[str, Any]:
    """Processor, memory, versions, commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpu": _cpu(),
        "cores": len(__import__("os").sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": _version("diffusers"),
        "commit": commit.stdout.strip(),
    }


def peak_rss() -> int:
    """Largest resident memory of this process so far, or since `reset_peak`, bytes.

    VmHWM rather than ru_maxrss: the latter starts at what the parent held when it forked.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's peak memory")


def reset_peak() -> None:
    """Bring this process's peak down to what it holds now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    marks = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{fields.get('model name', platform.processor())} ({', '.join(marks)})"


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _command() -> str:
    # where files lie on this machine says nothing to others
    arguments = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *arguments])
