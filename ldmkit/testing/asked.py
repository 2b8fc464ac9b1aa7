"""Detects reads of tensor values on the host, which synchronise with the GPU."""

from __future__ import annotations

import traceback
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Asked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operations that return tensor values to Python, and where they were called."""

    OPERATIONS = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"})

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        if name in self.OPERATIONS:
            frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename.replace("\\", "/")]
            self.found.append(f"{name} at {frames[-2].filename}:{frames[-2].lineno}")
        return func(*args, **(kwargs or {}))
