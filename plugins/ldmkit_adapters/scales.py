"""Factors of an adapter's layers by the beginning of their path."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ldmkit import SpecError, suggest


def check_scales(scales: Mapping[str, float], paths: Collection[str], what: str) -> None:
    """Refuse beginnings that no layer's path has.

    Args:
        what: the layers are, for the error: "changed layers".

    Raises:
        SpecError: `invalid`.
    """
    for start in scales:
        if not any(_begins(path, start) for path in paths):
            said = f"none of the {len(paths)} {what} is below {start!r}"
            raise SpecError("invalid", said, where=f"scales.{start}", fits=suggest(start, _beginnings(paths)))


def scale_of(path: str, scale: float, scales: Mapping[str, float]) -> float:
    """The factor of the layer at a path: `scale`, times that of the longest beginning of the path."""
    fitting = [start for start in scales if _begins(path, start)]
    return scale * (scales[max(fitting, key=len)] if fitting else 1.0)


def _begins(path: str, start: str) -> bool:
    return path == start or path.startswith(f"{start}.")


def _beginnings(paths: Collection[str]) -> list[str]:
    """What paths may begin with, for a suggestion."""
    found = {".".join(path.split(".")[:count]) for path in paths for count in (1, 2)}
    return sorted(found)
