"""Progress on stderr."""

from __future__ import annotations

from typing import Any, Self

from ldmkit.printable import printable


class Bars:
    """A progress bar on stderr for each task in progress; nothing if stderr is not a terminal."""

    def __init__(self, unit: str, quiet: bool) -> None:
        self.unit, self.quiet, self.name = unit, quiet, ""
        self.bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, name: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if name != self.name:
            self.__exit__()
            hidden = True if self.quiet else None
            self.bar = tqdm(desc=printable(name), total=total, unit=self.unit, disable=hidden, leave=False)
            self.name = name
        self.bar.update(done - self.bar.n)

    def __exit__(self, *failure: object) -> None:
        if self.bar is not None:
            self.bar.close()
