"""Files of weights that extractors read."""

from __future__ import annotations

from pathlib import Path

from ldmkit import SourceError


def found(path: str | None, fits: str, what: str, advice: str) -> Path:
    """Where weights are.

    Args:
        fits: how they are named.
        what: what they are.
        advice: where they come from.

    Raises:
        SourceError: `no-weights`: none are named, or they are not there.
    """
    named = None if path is None else Path(path).expanduser()
    if named is None or not named.exists():
        problem = f"{what} is needed, and none is named" if named is None else f"there is no {named}"
        raise SourceError("no-weights", problem, where=fits.partition(":")[0], fits=f"{fits}, such as {advice}")
    return named


def stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a file or of a folder's files: they tell whether they must be read again."""
    files = [path] if path.is_file() else sorted(child for child in path.iterdir() if child.is_file())
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
