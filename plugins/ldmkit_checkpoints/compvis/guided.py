"""Plan for a U-Net of guided-diffusion (ADM; Dhariwal & Nichol 2021) from its file and the flags of its scripts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ldmkit_denoisers.config import UNetConfig
from ldmkit_processes.discrete import Discrete

from ldmkit import ConditionerSpec, LazyTensor, PartSpec, SourceError, SpecError
from ldmkit_checkpoints.compvis.guided_flags import PUBLISHED, SECTION, Flags, numbers_of, read_flags
from ldmkit_checkpoints.compvis.guided_structure import Structure, is_classifier, structure_of
from ldmkit_checkpoints.compvis.plan import CheckpointPlan, PartPlan
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_checkpoints.config_fields import checked
from ldmkit_checkpoints.inventory import Inventory

T = TypeVar("T")

MULTIPLIERS = {
    512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4), 32: (1, 2, 2, 2),
}  # fmt: skip
"""`channel_mult` by `image_size` where the flag is empty; 32 is improved-diffusion's."""

_UPSAMPLERS = {512: (1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 64: (1, 2, 3, 4)}
"""The same by `large_size`, for the upsamplers."""

_ASSUMED = {
    "noise_schedule": ("noise_schedule",),
    "num_heads": ("num_heads", "num_head_channels"),
    "image_size": ("image_size", "large_size"),
}
"""Flags that no shape shows -> any of these states it; where none does, the default is used, with a warning."""


def flags_of_published(path: Path, tensors: Mapping[str, LazyTensor]) -> dict[str, Any]:
    """The section for a file without flags: those published for its name, with a warning.

    Raises:
        SourceError: `config-needed`: it has no published name.
    """
    if path.stem in PUBLISHED and is_classifier(tensors) == path.stem.endswith("classifier"):
        what = f"no flags are beside it, and its name is that of a published model: its flags are used ({path.stem})"
        warnings.warn(f"{path}: {what}", stacklevel=2)
        return {SECTION: path.stem}
    kind = "classifier" if is_classifier(tensors) else "U-Net"
    what = f"it is a {kind} of guided-diffusion's layout, and its shapes do not show all of its flags"
    if kind == "classifier":
        asked = "--image_size N --classifier_depth N --classifier_width N --noise_schedule NAME"
    else:
        found = structure_of(tensors, str(path))
        asked = (
            f"--image_size N --noise_schedule NAME, --num_heads N or --num_head_channels N, and "
            f"--use_new_attention_order True if it was trained so; in the file there are: {_shown(found)}"
        )
    fits = f"{path.with_suffix('.yaml').name} beside it, or config=, with '{SECTION}: \"{asked}\"'"
    raise SourceError("config-needed", what, where=str(path), fits=fits)


def plan_guided(given: Any, inventory: Inventory, where: str) -> CheckpointPlan:
    """Plan the section of a yaml; flags that are not given are read from the shapes, where these show them.

    Raises:
        SourceError: unknown or unsupported flags, or flags that the file contradicts.
    """
    flags, named = read_flags(given, where)
    found = structure_of(inventory.tensors, inventory.where)
    notes = assumed(flags, named, inventory.where)
    unet = unet_of(flags, named, found, where)
    denoiser = PartSpec(type="unet", config=unet.model_dump(mode="json", exclude_defaults=True))
    return CheckpointPlan(
        PartPlan(PartSpec(type="identity")),
        lambda key: None,
        PartPlan(denoiser, unet_compvis(unet, flags.use_new_attention_order)),
        _conditions(flags, found, where),
        process=process_of(flags, named, where),
        defaults=_defaults(flags, named, found, where),
        notes=notes,
    )


def unet_of(flags: Flags, named: frozenset[str], found: Structure, where: str) -> UNetConfig:
    """The native config of a U-Net.

    Raises:
        SourceError: `flag-mismatch`: the file has another structure than a flag says; `unsupported`.
    """
    upsamples = flags.large_size is not None
    _match("large_size", upsamples, found.inputs == 6, where, "an upsampler reads 6 channels, any other model 3")
    width = _agreed(flags, named, "num_channels", found.width, where)
    widths = _widths(flags, named, width, found, where)
    outputs = 6 if _agreed(flags, named, "learn_sigma", found.outputs == 6, where) else 3
    if found.inputs not in (3, 6) or found.outputs != outputs:
        what = f"a U-Net of {found.inputs} input and {found.outputs} output channels"
        raise SourceError("unsupported", what, where=where, fits="pictures: 3 or 6 channels")
    if flags.num_head_channels == -1 and flags.num_heads_upsample not in (-1, flags.num_heads):
        what = f"num_heads_upsample = {flags.num_heads_upsample} beside num_heads = {flags.num_heads}"
        raise SourceError("unsupported", what, where=f"{where}.num_heads_upsample", fits="-1")
    classes = found.classes if _agreed(flags, named, "class_cond", found.classes is not None, where) else None
    return network({
        "channels": 3,
        "in_channels": found.inputs,
        "out_channels": outputs,
        "widths": widths,
        "blocks": _agreed(flags, named, "num_res_blocks", found.blocks, where),
        "attention": _attention(flags, named, found, where),
        "mid": "self",
        "time_dim": 4 * width,
        "time_code": width,
        "scale_shift": _agreed(flags, named, "use_scale_shift_norm", found.scale_shift, where),
        "residual_resample": _agreed(flags, named, "resblock_updown", found.residual_resample, where),
        "dropout": flags.dropout,
        **({"vector": "table", "vector_dim": classes} if classes is not None else {}),
        **heads_of(flags),
    }, where)  # fmt: skip


def network(config: dict[str, Any], where: str) -> UNetConfig:
    """The config, validated.

    Raises:
        SourceError: `unsupported`: heads that do not divide a width.
    """
    try:
        return UNetConfig.of(config, where)
    except SpecError as error:
        raise SourceError("unsupported", error.what, where=where, fits=error.fits) from None


def heads_of(flags: Flags) -> dict[str, int]:
    """Heads, or channels per head, which win if they are given."""
    return {"heads": flags.num_heads} if flags.num_head_channels == -1 else {"head_dim": flags.num_head_channels}


def attended(text: str, name: str, size: int, levels: int, where: str) -> tuple[bool, ...]:
    """Which levels attend: the flag has sides of maps, in pixels."""
    factors = {size // int(side) for side in numbers_of(text, name, where) if side >= 1}
    return tuple(2**level in factors for level in range(levels))


def process_of(flags: Flags, named: frozenset[str], where: str) -> PartSpec:
    """The process; betas are scaled with the number of steps, as the scripts do.

    Raises:
        SourceError: `unsupported`: times on another scale than the table's; `config-needed`: it is not said whether.
    """
    if flags.diffusion_steps != 1000 and "rescale_timesteps" not in named:
        what = (
            f"{flags.diffusion_steps} steps, and rescale_timesteps is not given, whose default differs between programs"
        )
        fits = "rescale_timesteps False (guided-diffusion's default) or True (improved-diffusion's)"
        raise SourceError("config-needed", what, where=f"{where}.rescale_timesteps", fits=fits)
    if flags.rescale_timesteps and flags.diffusion_steps != 1000:
        what = "rescale_timesteps with another number of steps than 1000: times that are no timesteps"
        raise SourceError("unsupported", what, where=f"{where}.rescale_timesteps", fits="False")
    config: dict[str, Any] = {"schedule": "cosine"}
    if flags.noise_schedule == "linear":
        scale = 1000 / flags.diffusion_steps
        config = {"schedule": "linear", "beta_start": scale * 1e-4, "beta_end": scale * 0.02}
    config |= {"steps": flags.diffusion_steps, "prediction": "x0" if flags.predict_xstart else "eps"}
    return PartSpec(type="discrete", config=checked(Discrete, config, where, {"beta_end": "diffusion_steps"}))


def _agreed(flags: Flags, named: frozenset[str], name: str, found: T, where: str) -> T:
    """What the file's shapes show, which a flag that is given must not contradict."""
    if name in named:
        _match(name, getattr(flags, name), found, where)
    return found


def _match(name: str, said: Any, found: Any, where: str, fits: str | None = None) -> None:
    if said != found:
        what = f"{name} says {said}, the file's shapes say {found}"
        raise SourceError("flag-mismatch", what, where=f"{where}.{name}", fits=fits or f"{name} {found}")


def _widths(flags: Flags, named: frozenset[str], width: int, found: Structure, where: str) -> tuple[int, ...]:
    """Widths of the levels: of `channel_mult`, else those of the size, with which the file must agree."""
    table = MULTIPLIERS if flags.large_size is None else _UPSAMPLERS
    if flags.channel_mult:
        said = tuple(numbers_of(flags.channel_mult, "channel_mult", where))
    elif {"image_size", "large_size"} & named and flags.side in table:
        said = table[flags.side]
    else:
        return found.widths
    widths = tuple(int(width * factor) for factor in said)
    fits = f"channel_mult {','.join(f'{w / width:g}' for w in found.widths)}"
    _match("channel_mult" if flags.channel_mult else "image_size", widths, found.widths, where, fits)
    return widths


def _attention(flags: Flags, named: frozenset[str], found: Structure, where: str) -> tuple[str, ...]:
    if "attention_resolutions" in named:
        text = flags.attention_resolutions
        said = attended(text, "attention_resolutions", flags.side, len(found.widths), where)
        fits = f"attention at {_sides(found, flags.side) or 'no side'}, or another image_size"
        _match("attention_resolutions", said, found.attention, where, fits)
    return tuple("self" if there else "none" for there in found.attention)


def _sides(found: Structure, size: int) -> str:
    return ",".join(str(size >> level) for level, there in enumerate(found.attention) if there)


def _conditions(flags: Flags, found: Structure, where: str) -> dict[str, PartPlan]:
    plans: dict[str, PartPlan] = {}
    if found.classes is not None:
        config: dict[str, Any] = {"n_classes": found.classes}
        plans["label"] = PartPlan(ConditionerSpec(type="class-number", config=config, slot="vector", null="keep"))
    if flags.large_size is not None:
        small = flags.small_size or 0
        if not small or flags.large_size % small:
            what = f"large_size {flags.large_size} with small_size {flags.small_size}"
            raise SourceError("unsupported", what, where=f"{where}.small_size", fits="a divisor of large_size")
        config = {"enlarge": flags.large_size // small}
        plans["low"] = PartPlan(ConditionerSpec(type="image", config=config, slot="plane", null="keep"))
    return plans


def _defaults(flags: Flags, named: frozenset[str], found: Structure, where: str) -> dict[str, Any]:
    """Sampler, grid and size as the scripts have them; x0 is clipped before a classifier's gradient acts."""
    limits = {"limits": {"bound": 1.0}} if flags.clip_denoised else {}
    variance = "learned" if found.outputs == 6 else "small" if flags.sigma_small else "large"
    ddpm = {"variance": variance, "gradient": "mean", **limits}
    ddim = {"noise": "limited", **limits}
    sampler = PartSpec(type="ddim", config=ddim) if flags.use_ddim else PartSpec(type="ddpm", config=ddpm)
    grid, steps = _respaced(flags, where)
    return {"sampler": sampler, "grid": grid, "steps": steps, "size": (flags.side, flags.side),
            "guidance": PartSpec(type="none")}  # fmt: skip


def _respaced(flags: Flags, where: str) -> tuple[PartSpec, int]:
    """The grid and number of steps of `timestep_respacing`: "", "250", "10,15,20" or "ddim25"."""
    text, place = flags.timestep_respacing.strip(), "timestep_respacing"
    if not text:
        return PartSpec(type="respaced"), flags.diffusion_steps
    strided = text.startswith("ddim")
    counts = [int(n) for n in numbers_of(text.removeprefix("ddim"), place, where) if n == int(n) and n >= 1]
    if not counts or (strided and len(counts) > 1) or len(counts) != text.count(",") + 1:
        fits = "'', '250', '10,15,20' or 'ddim25'"
        raise SourceError("invalid", f"{place} is {text!r}", where=f"{where}.{place}", fits=fits)
    config: dict[str, Any] = {"rule": "ddim"} if strided else {"sections": counts} if len(counts) > 1 else {}
    return PartSpec(type="respaced", config=config), sum(counts)


def assumed(flags: Flags, named: frozenset[str], where: str, heads: bool = True) -> list[str]:
    """Warnings, for the report too, about flags that no shape shows and nobody gave; a classifier has none of heads."""
    missing = [name for name, ways in _ASSUMED.items() if not set(ways) & named and (heads or name != "num_heads")]
    if not missing:
        return []
    values = ", ".join(f"{name} {getattr(flags, name)}" for name in missing)
    what = f"flags that are not given have the scripts' defaults: {values}"
    warnings.warn(f"{where}: {what}", stacklevel=2)
    return [what]


def _shown(found: Structure) -> str:
    factors = ",".join(f"{width / found.width:g}" for width in found.widths)
    levels = ",".join(str(level) for level, there in enumerate(found.attention) if there) or "none"
    return (
        f"num_channels {found.width}, channel_mult {factors}, num_res_blocks {found.blocks}, attention at levels "
        f"{levels}, learn_sigma {found.outputs == 6}, class_cond {found.classes is not None}, "
        f"resblock_updown {found.residual_resample}, use_scale_shift_norm {found.scale_shift}"
    )
