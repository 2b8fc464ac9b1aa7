"""From a source of any known format to filled parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ldmkit.contracts.arguments import check_device, check_dtype, instance_of
from ldmkit.contracts.part import Part
from ldmkit.errors import InputError, WeightsError, caller_level, shown
from ldmkit.models.ambient import usual_device
from ldmkit.models.compose import Parts, build, compose
from ldmkit.models.digests import no_digests
from ldmkit.models.latent_scale import latents_of
from ldmkit.models.locate import bundled_models, check_config, locate
from ldmkit.models.memory import memory
from ldmkit.models.meta import on_meta
from ldmkit.models.provenance import Named, blame_version, differences, named_parts, require, with_inner
from ldmkit.models.source import NativeFolder, PartFolder, Source, is_native, is_part, unrecognised
from ldmkit.models.spec import Defaults, PartSpec, PipelineSpec, Verify, check_verify
from ldmkit.models.weights import assign
from ldmkit.plugins.hooks import manager


@usual_device()
def read_model(
    source: str | Path,
    *,
    config: str | Path | None = None,
    ema: bool | None = None,
    variant: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Verify = "fast",
    mapped: bool = True,
) -> dict[str, Any]:
    """What `Pipeline` is built from; arguments and errors as for `ldmkit.load`."""
    opened = open_source(source, config=config, ema=ema, variant=variant, verify=verify)
    kept = check_dtype(dtype)
    given = {"config": None if config is None else str(Path(config).absolute()), "ema": ema, "variant": variant}
    given["dtype"] = None if kept is None else str(dtype)
    options = {key: value if key == "ema" else str(value) for key, value in given.items() if value is not None}
    return {**fill_model(opened, device=device, dtype=dtype, mapped=mapped), "load_options": options}


def fill_model(
    source: Source,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    mapped: bool = True,
) -> dict[str, Any]:
    """Compose what a source describes and fill it with its weights; the errors of `ldmkit.load`."""
    source, mapped = instance_of(source, Source, "source"), instance_of(mapped, bool, "mapped")
    where, kept = check_device(device), check_dtype(source.dtype if dtype is None else dtype)
    spec = source.spec
    parts = compose(spec)
    fill(parts, spec, source, device=where, dtype=kept, mapped=mapped)
    parts.denoiser.latents = latents_of(parts.codec)
    _warn_of_versions(source, named_parts(spec), spec.defaults)
    return {
        "parts": parts, "wiring": spec.conditioners, "defaults": spec.defaults, "origin": source.origin,
    }  # fmt: skip


def open_source(
    source: str | Path,
    *,
    config: str | Path | None = None,
    ema: bool | None = None,
    variant: str | None = None,
    verify: Verify = "fast",
) -> Source:
    """The reader for a source; its report tells afterwards what became of every key.

    Raises:
        SourceError: not found (with the bundled names), or of no known format; `no-digests` where `verify` is "full".
        InputError: `no-variants`: the source has one set of weights, and a variant is asked for.
    """
    verify = check_verify(verify)
    for name, value in (("source", source), ("config", config)):
        if not isinstance(value, (str, Path, type(None))) or (name == "source" and value is None):
            raise InputError("path-type", f"got {shown(value)}", where=name, fits="a path, or a name")
    if not isinstance(ema, (bool, type(None))):
        raise InputError("ema-type", f"got {shown(ema)}", where="ema", fits="True, False or None")
    if variant is not None and not (isinstance(variant, str) and variant):
        raise InputError("variant-type", f"got {shown(variant)}", where="variant", fits="a name, as 'fp16', or None")
    path, origin = locate(source, variant)
    yaml = check_config(config)
    if path.is_dir() and (is_native(path) or is_part(path)):
        given = {"config": yaml, "ema": ema, "variant": variant}
        if named := [name for name, value in given.items() if value is not None]:
            what = (
                "a saved pipeline has its own spec and one set of weights: neither config nor ema nor variant applies"
            )
            raise InputError("not-for-native", what, where=named[0])
        opened: Source | None = PartFolder(path, verify) if is_part(path) else NativeFolder(path, verify)
    else:
        if verify == "full":
            raise no_digests(origin)
        identify = manager().hook.ldmkit_identify_checkpoint
        opened = identify(path=path, config=yaml, ema=ema, variant=variant)
    if opened is None:
        raise unrecognised(path)
    if variant is not None and not opened.has_variants:
        what = f"variant={variant!r}: this format has one set of weights, or its reader takes no variant"
        raise InputError("no-variants", what, where=origin, fits="a folder of diffusers, or no variant")
    opened.origin = origin
    return opened


def fill(
    parts: Parts,
    spec: PipelineSpec,
    source: Source,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    mapped: bool = True,
) -> None:
    """Read the weights of every part; parts that share another's weights adopt them."""
    specs = {one.path: one.spec for one in named_parts(spec)}
    for path, part in parts.items().items():
        name = path.removeprefix("conditioners.")
        if path.startswith("conditioners.") and spec.conditioners[name].shares is not None:
            continue
        _fill_part(part, specs[path], path, source, device, dtype, mapped)
    for name, wire in spec.conditioners.items():
        if wire.shares is not None:
            parts.conditioners[name].adopt(parts.conditioners[wire.shares])
            _load_assets(parts.conditioners[name], f"conditioners.{name}", source)
    for part in parts.items().values():
        part.eval().requires_grad_(False)


def _fill_part(
    part: Part,
    spec: PartSpec,
    path: str,
    source: Source,
    device: torch.device,
    dtype: torch.dtype | None,
    mapped: bool,
) -> None:
    count = sum(parameter.numel() for parameter in part.parameters())
    try:
        with memory(f"loading {path}", f"{count:,} parameters"):
            assign(part, source.tensors(path), f"{source.origin} {path}", device=device, dtype=dtype, mapped=mapped)
    except WeightsError as error:
        blame_version(error, spec)
        raise
    _load_assets(part, path, source)


def part_of(
    source: Source,
    kind: str,
    spec: PartSpec,
    path: str,
    *,
    where: str | None = None,
    device: torch.device,
    dtype: torch.dtype | None,
    mapped: bool,
) -> Any:
    """One part, with the weights and assets that a source has under a part path.

    Args:
        spec: of the part; its tensors are those of the source.
        path: as in the source (`codec`, `conditioners.text`).
        where: the spec stands, for errors; None: at `path`.
    """
    instance_of(mapped, bool, "mapped")
    parts = [*with_inner(Named(path, kind, spec))]
    require(iter(parts))
    with on_meta():
        part = build(kind, spec, where or path)
    _fill_part(part, spec, path, source, device, dtype, mapped)
    _warn_of_versions(source, iter(parts))
    return part


def _warn_of_versions(source: Source, parts: Iterator[Named], defaults: Defaults | None = None) -> None:
    """Warn, once, about other versions than those that a saved pipeline names."""
    bundled = bundled_models().get(source.origin)
    found = differences(parts, defaults, None if bundled is None else bundled.dist)
    if found:
        source.report.notes += found
        warnings.warn(f"{source.origin}: {'; '.join(found)}", stacklevel=caller_level())


def _load_assets(part: Part, path: str, source: Source) -> None:
    folder = source.assets(path)
    if folder is not None:
        part.load_assets(folder)
