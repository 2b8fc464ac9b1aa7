"""A codec within a budget keeps to it in resident memory too, where the C library lets go of what is freed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from ldmkit_codecs import heap
from ldmkit_codecs.heap import SHARE, Heap

MIB = 2**20
BUDGET = 6
PEAK = """
import json, torch
from pathlib import Path
from ldmkit_codecs import heap
from ldmkit_codecs.kl import KLCodec
from ldmkit_codecs.tiled import TiledCodec

def peak():
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def beyond():
    real(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    held = peak()
    made = tiled.decode(z)
    return peak() - held - made.nbytes

real = heap.trimmer()
torch.set_num_threads(1)
torch.manual_seed(0)
codec = KLCodec({{"widths": (32, 32, 64), "blocks": 1, "mid_attention": "none"}}).eval().requires_grad_(False)
tiled = TiledCodec.wrap(codec, budget_mib={budget})
with torch.no_grad():
    z = torch.randn(1, 4, 40, 40)
    tiled.decode(z)  # kernels are made, and stay
    kept = beyond()
    heap.trimmer = lambda: None
    print(json.dumps([kept, beyond()]))
"""


@pytest.mark.skipif(heap.trimmer() is None, reason="the C library has no malloc_trim")
def test_resident_memory_keeps_to_the_budget() -> None:
    """An eighth of it comes on top: the freed memory that may stay."""
    command = [sys.executable, "-W", "ignore", "-c", PEAK.format(budget=BUDGET)]
    kept, unkept = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kept <= BUDGET * MIB * (1 + 1 / SHARE), f"{kept / MIB:.1f} MiB"
    assert unkept > 1.2 * kept, "there was nothing to give back"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A process whose freed memory (`free`) a trim returns."""
    now = {"used": 100 * MIB, "free": 0, "trims": 0}

    def trim(_: int) -> None:
        now["free"], now["trims"] = 0, now["trims"] + 1

    monkeypatch.setattr(heap, "trimmer", lambda: trim)
    monkeypatch.setattr(heap, "resident", lambda: now["used"] + now["free"])
    return now


def test_only_freed_memory_beyond_the_bound_is_given_back(memory: dict[str, int]) -> None:
    kept = Heap(torch.zeros(2), 80 * MIB)
    made = torch.empty(20 * MIB // 4)
    memory["used"] += made.nbytes
    memory["free"] = 9 * MIB
    kept.settle(made)
    assert memory["trims"] == 1 and memory["free"] == 9 * MIB  # the first one is that of the beginning
    memory["free"] = 11 * MIB
    kept.settle(made, None)
    assert memory["trims"] == 2 and memory["free"] == 0


def test_what_others_hold_is_not_asked_for_again(memory: dict[str, int]) -> None:
    """Another thread's memory stays whatever is trimmed: that is tried once."""
    kept = Heap(torch.zeros(2), 80 * MIB)
    memory["used"] += 50 * MIB
    for _ in range(5):
        kept.settle()
    assert memory["trims"] == 2
    memory["free"] = 11 * MIB
    kept.settle()
    assert memory["trims"] == 3


@pytest.mark.parametrize("where", ["library", "device"])
def test_without_such_a_call_nothing_happens(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise AssertionError("memory is looked at")

    monkeypatch.setattr(heap, "resident", fail)
    if where == "library":
        monkeypatch.setattr(heap, "trimmer", lambda: None)
    Heap(torch.zeros(2, device="cpu" if where == "library" else "meta"), MIB).settle(torch.zeros(2))
