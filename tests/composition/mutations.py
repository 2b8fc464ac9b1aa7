"""Files of every format that is read, damaged at random: each loads, or is refused by an error of ldmkit's own, soon.

python tests/composition/mutations.py --count 20000 [--seed 0] [--only png] prints what became of them; the test draws a
few hundred.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

SECONDS = 10.0
"""Of processor time, for a file of some kilobytes."""
MEMORY = 4 << 30
"""Bytes of address space, beyond what the process has, that a reader may ask for."""

Draw = random.Random


class Subject(NamedTuple):
    """A kind of file.

    Args:
        name: of the kind.
        files: those of a folder that are damaged, one at a time.
        read: what is in the folder, as text that is the same where the content is; an LdmkitError where it is refused.
        exact: whether what loads must be what was written: the format carries sums.
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], str]
    exact: bool = False


class Outcome(NamedTuple):
    """What became of one file: `same`, `other`, `refused`, `raw` or `slow`, and the error's last lines."""

    kind: str
    text: str = ""


class TooSlow(BaseException):
    """The time is over."""


def mutated(data: bytes, draw: Draw) -> bytes:
    """The data with one to three accidents."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice(MUTATIONS)(bytearray(data), draw)
    return data


def _flip(data: bytearray, draw: Draw) -> bytes:
    for _ in range(draw.choice((1, 1, 4))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def _span(data: bytearray, draw: Draw) -> slice:
    begin = draw.randrange(len(data) + 1)
    return slice(begin, min(len(data), begin + draw.choice((1, 2, 4, 16, 64, 512, 4096))))


def _early(data: bytearray, draw: Draw) -> bytes:
    """Headers stand at the start: a byte of the first few hundred becomes another."""
    if data:
        data[draw.randrange(min(len(data), 600))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return bytes(data)


def _cut(data: bytearray, draw: Draw) -> bytes:
    return bytes(data[: draw.randrange(len(data) + 1)])


def _remove(data: bytearray, draw: Draw) -> bytes:
    del data[_span(data, draw)]
    return bytes(data)


def _repeat(data: bytearray, draw: Draw) -> bytes:
    span = _span(data, draw)
    data[span.start : span.start] = data[span] * draw.choice((1, 1, 3, 100))
    return bytes(data)


def _noise(data: bytearray, draw: Draw) -> bytes:
    span = _span(data, draw)
    data[span] = draw.randbytes(len(data[span]))
    return bytes(data)


def _zeros(data: bytearray, draw: Draw) -> bytes:
    span = _span(data, draw)
    data[span] = bytes(len(data[span]))
    return bytes(data)


def _move(data: bytearray, draw: Draw) -> bytes:
    span = _span(data, draw)
    piece = data[span]
    del data[span]
    at = draw.randrange(len(data) + 1)
    data[at:at] = piece
    return bytes(data)


def _number(data: bytearray, draw: Draw) -> bytes:
    """An integer of two to eight bytes becomes an odd one."""
    width = draw.choice((2, 4, 8))
    if len(data) >= width:
        at = draw.randrange(min(len(data), draw.choice((64, 4096, len(data)))) - width + 1) if len(data) > width else 0
        value = draw.choice((0, 1, -1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)), 65536 % 2 ** (8 * width - 1)))
        data[at : at + width] = value.to_bytes(width, draw.choice(("little", "big")), signed=True)
    return bytes(data)


_WORDS = (
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"1e-320", b"99999999999999999999", b"0.5", b"[]", b"{}", b'""'),
    *(b'"\\ud800"', b'"\\u0000"', b"[[[[[[[[", b"]", b'{"a":', b"\xff\xfe", b"\x1b[2J", b"&a [*a,*a]", b"- "),
    *(b"!!python/name:os", b"<<: *a"),
    *(b"../../etc/passwd", b"/dev/zero", b"\n", b"\r", b":", b",", b'"', b"'", b"#", b"9" * 5000),
)  # fmt: skip


def _word(data: bytearray, draw: Draw) -> bytes:
    """A word of a text becomes another, or one is put in."""
    at = draw.randrange(len(data) + 1)
    end = at
    while draw.random() < 0.8 and end < len(data) and end - at < 40 and data[end : end + 1] not in b',:\n{}[]" ':
        end += 1
    data[at:end] = draw.choice(_WORDS)
    return bytes(data)


def _deep(data: bytearray, draw: Draw) -> bytes:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice((b"[", b'{"a":', b"- ", b"(")) * draw.choice((50, 2000, 100_000))
    return bytes(data)


_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 64, 2**31, 2**63, 10**25, 0.5, -0.0, 1e308, 5e-324, 1.0000001),
    *("", "x", "1", "true", "../x", "\x1b[2J", "\ud800", "\0", "x" * 3000, [], {}, [[]], {"a": {}}, [None], [1, 2, 3]),
    *([1] * 300, {"type": "x", "config": {}}, "hf:a/b", "/dev/zero", "epsilon", "identity", "none"),
)  # fmt: skip


def _structured(data: bytearray, draw: Draw) -> bytes:
    """One value, or key, of a JSON file or of a safetensors header becomes another; of others, a word."""
    begin, end = 0, len(data)
    if len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        begin, end = 8, 8 + int.from_bytes(data[:8], "little")
    elif data[-1:] == b"\n" and data.count(b"\n{"):
        lines = [0, *(i + 1 for i, byte in enumerate(data) if byte == 10)]
        begin, end = draw.choice(list(pairwise(lines)))
    try:
        tree = json.loads(bytes(data[begin:end]))
    except (ValueError, RecursionError):
        return _word(data, draw)
    places = list(_places(tree))
    if not places:
        return _word(data, draw)
    holder, key = draw.choice(places)
    act = draw.randrange(6)
    if act == 0 and isinstance(holder, dict):
        holder[draw.choice(("x", "", f"{key}s", str(key)[::-1], "type", "config"))] = holder.pop(key)
    elif act == 1:
        del holder[key]
    elif act == 2:
        other, at = draw.choice(places)
        if at in other if isinstance(other, dict) else at < len(other):
            holder[key] = json.loads(json.dumps(other[at]))
    else:
        holder[key] = draw.choice(_VALUES)
    text = json.dumps(tree).encode("utf-8", "surrogatepass") + (b"\n" if begin and data[8:9] != b"{" else b"")
    head = len(text).to_bytes(8, "little") if begin == 8 and data[8:9] == b"{" else bytes(data[:begin])
    return head + text + bytes(data[end:])


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


MUTATIONS: tuple[Callable[[bytearray, Draw], bytes], ...] = (
    *(_flip, _flip, _early, _early, _cut, _remove, _repeat, _noise, _zeros, _move, _number, _number, _word, _word),
    *(_structured,) * 12,
    _deep,
)  # fmt: skip


def attempt(subject: Subject, folder: Path, good: str, seconds: float = SECONDS) -> Outcome:
    """Read a damaged folder."""
    from ldmkit.errors import LdmkitError

    try:
        with _alarm(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = subject.read(folder)
        outcome = Outcome("same" if found == good else "other")
    except LdmkitError as error:
        text = str(error)
        outcome = Outcome("refused") if text.isprintable() else Outcome("raw", f"not printable: {text!r}")
    except TooSlow:
        return Outcome("slow", subject.name)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return Outcome("raw", "".join(traceback.format_exception(error))[-2500:])
    return outcome


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGPROF, over)  # processor time: a busy machine is no slow reader
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def damage(subject: Subject, good: Path, into: Path, draw: Draw) -> Path:
    """A copy of the subject's folder with one damaged file."""
    folder = into / subject.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    chosen = folder / draw.choice(subject.files)
    chosen.write_bytes(mutated(chosen.read_bytes(), draw))
    return folder


def tensors_of(tensors: Any) -> str:
    """Names and numbers of lazy tensors."""
    import torch

    made = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].read(True)
        made.update(f"{key} {value.dtype} {tuple(value.shape)}".encode("utf-8", "backslashreplace"))
        made.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import resource

    from mutation_subjects import prepared

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--show", type=int, default=1, help="tracebacks a kind of raw error")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="ldmkit-mutations-"))
    try:
        subjects = [s for s in prepared(work) if options.only in (None, s[0].name)]
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        counts: dict[str, Counter[str]] = {subject.name: Counter() for subject, _, _ in subjects}
        shown: Counter[str] = Counter()
        draw, longest = Draw(options.seed), 0.0
        for number in range(options.count):
            subject, good, text = subjects[number % len(subjects)]
            folder = damage(subject, good, work, draw)
            began = time.process_time()
            outcome = attempt(subject, folder, text)
            longest = max(longest, time.process_time() - began)
            wrong = outcome.kind in ("raw", "slow") or (outcome.kind == "other" and subject.exact)
            counts[subject.name][outcome.kind if not (wrong and outcome.kind == "other") else "wrong"] += 1
            key = f"{subject.name} {outcome.kind} {outcome.text[-90:]}"
            if wrong and shown[key] < options.show:
                print(f"--- {subject.name} {number}: {outcome.kind}\n{outcome.text}", flush=True)
                shutil.copytree(folder, work.with_name(f"{work.name}-{number}"))
            shown[key] += wrong
        for name, found in counts.items():
            print(name, dict(found))
        total = sum(counts.values(), Counter())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("all", dict(total), f"longest {longest:.2f} s, peak {peak / 2**20:.2f} GiB")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
