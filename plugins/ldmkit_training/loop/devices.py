"""Processes, devices and precision, by way of accelerate."""

from __future__ import annotations

import platform
import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ldmkit import Batch, PluginError, SpecError

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Arithmetic(NamedTuple):
    """The precision the networks compute in, and why `auto` chose it (or why an explicit choice is slow).

    Args:
        dtype: its name in torch.
        why: reason for the choice, for the plan; empty for an explicit choice that the device supports.
        slow: whether the device lacks instructions for it.
    """

    dtype: Literal["float32", "bfloat16", "float16"]
    why: str = ""
    slow: bool = False


def arithmetic(precision: Precision, device: torch.device) -> Arithmetic:
    """Resolves a recipe's `precision` for a device; `auto` is bfloat16 if the device has instructions for it."""
    if precision in ("float32", "float16"):
        return Arithmetic(precision)
    has = has_bfloat16(device)
    name = "this CPU" if device.type == "cpu" else f"this device ({device.type})"
    if precision == "bfloat16":
        lacks = f"{name} has no instructions for bfloat16 and emulates them, which takes several times as long"
        return Arithmetic("bfloat16") if has else Arithmetic("bfloat16", lacks, slow=True)
    if has:
        return Arithmetic("bfloat16", f"{name} has instructions for it")
    return Arithmetic("float32", f"{name} has no instructions for bfloat16")


def automatic(precision: Precision, device: torch.device) -> list[str]:
    """One line with what `auto` chose and why; none if the recipe names the precision."""
    chosen = arithmetic(precision, device)
    return [f"precision auto is {chosen.dtype}: {chosen.why}"] if precision == "auto" else []


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 instructions that torch and oneDNN use."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    mkldnn = torch.ops.mkldnn
    if not (hasattr(mkldnn, "_is_mkldnn_bf16_supported") and mkldnn._is_mkldnn_bf16_supported()):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    # oneDNN reports support for every AVX-512 CPU; those without AVX512_BF16 emulate
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return native is None or bool(native())


def open_accelerator() -> Any:
    """The accelerate object of this process; mixed precision is handled by the recipe, not by accelerate.

    Raises:
        PluginError: `missing-dependency`: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ModuleNotFoundError as error:
        fits = "pip install 'ldmkit[train]'"
        raise PluginError("missing-dependency", f"training needs {error.name!r}", fits=fits) from error
    # if a whole batch drops a condition, its parameters get no gradient
    options = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision="no", kwargs_handlers=[options])


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to lower precision inside the block, with float32 weights."""
    dtype = arithmetic(precision, device).dtype
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, dtype))


def scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """The loss scaler that float16 needs; disabled for other precisions.

    Raises:
        SpecError: `precision`: float16 without CUDA.
    """
    if precision == "float16" and device.type != "cuda":
        what = f"float16 training needs CUDA, this runs on {device.type}"
        raise SpecError("precision", what, where="precision", fits="auto, bfloat16 or float32")
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Seed every global generator from (seed, step, rank), at each step, so that resuming needs no generator state.

    Only layers such as dropout draw from them; ldmkit's own code draws from `Draws`.
    """
    mixed = (seed * 1_000_003 + step) * 65_537 + rank
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    torch.manual_seed(mixed % 2**63)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    if device.type == "cpu":
        return batch
    moved: dict[str, Tensor] = {}
    for name in ("images", "latents", "deviation"):
        tensor = getattr(batch, name)
        if tensor is not None:
            moved[name] = tensor.to(device, non_blocking=True)
    return replace(batch, **moved)  # type: ignore[arg-type]


def summed(values: Mapping[str, Tensor], accelerator: Any) -> dict[str, float]:
    """Numbers summed over all processes, in one transfer to the host."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float().reshape(()) for value in values.values()])
    if accelerator.num_processes > 1:
        stacked = accelerator.reduce(stacked, reduction="sum")
    return dict(zip(values, stacked.tolist(), strict=True))
