"""Loading of parts with their weights, from a source in any known format."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ldmkit.contracts.arguments import check_device, check_dtype, instance_of
from ldmkit.contracts.part import Part
from ldmkit.errors import InputError, SourceError, WeightsError, caller_level, shown
from ldmkit.models.abilities import share
from ldmkit.models.ambient import usual_device
from ldmkit.models.cascade import at_stage
from ldmkit.models.cascade_files import CascadeFolder, is_cascade, shared_parts
from ldmkit.models.cascade_source import CascadeSource
from ldmkit.models.compose import Parts, compose, module_of
from ldmkit.models.composed import Composed
from ldmkit.models.digests import no_digests
from ldmkit.models.found import FoundPart, find_part_alone, find_parts
from ldmkit.models.latent_scale import latents_of
from ldmkit.models.locate import bundled_models, check_config, locate
from ldmkit.models.memory import memory
from ldmkit.models.meta import on_meta
from ldmkit.models.provenance import blame_version
from ldmkit.models.source import NativeFolder, PartFolder, Source, is_native, is_part, unrecognised
from ldmkit.models.spec import Defaults, PartSpec, PipelineSpec, Verify, check_verify, owners_of
from ldmkit.models.versions import differences
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
    """The constructor arguments of `Pipeline`; parameters and errors as for `ldmkit.load`."""
    opened = open_source(source, config=config, ema=ema, variant=variant, verify=verify)
    options = loading_options(config=config, ema=ema, variant=variant, dtype=dtype)
    return {**fill_model(opened, device=device, dtype=dtype, mapped=mapped), "load_options": options}


@usual_device()
def fill_model(
    source: Source,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    mapped: bool = True,
    ready: Mapping[str, Part] | None = None,
) -> dict[str, Any]:
    """Compose the spec of a source and load its weights; raises the errors of `ldmkit.load`.

    Args:
        ready: parts by their paths that are filled already, of a pipeline that shares them.
    """
    source, mapped = instance_of(source, Source, "source"), instance_of(mapped, bool, "mapped")
    where, kept = check_device(device), check_dtype(source.dtype if dtype is None else dtype)
    return _filled(_unfilled(source, ready), where, kept, mapped, ready)


class Unfilled(NamedTuple):
    """A pipeline before its weights are read: its source and spec, and its parts on the meta device."""

    source: Source
    spec: PipelineSpec
    found: Sequence[FoundPart]
    parts: Parts

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments of `Pipeline`."""
        wiring, defaults = self.spec.conditioners, self.spec.defaults
        return {"parts": self.parts, "wiring": wiring, "defaults": defaults, "origin": self.source.origin}


def _unfilled(source: Source, ready: Mapping[str, Part] | None) -> Unfilled:
    spec = source.spec
    found = find_parts(spec)
    return Unfilled(source, spec, found, compose(spec, found, ready))


def _filled(
    made: Unfilled, device: torch.device, dtype: torch.dtype | None, mapped: bool, ready: Mapping[str, Part] | None
) -> dict[str, Any]:
    _fill(made.parts, made.spec, made.found, _Filling(made.source, device, dtype, mapped), ready or {})
    made.parts.denoiser.latents = latents_of(made.parts.codec)
    _warn_of_versions(made.source, made.found, made.spec.defaults)
    return made.arguments


@usual_device()
def read_cascade(
    source: CascadeSource,
    check: Callable[[Mapping[str, Composed]], None],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    mapped: bool = True,
) -> dict[str, dict[str, Any]]:
    """What the pipeline of each stage is built from; a part that several share is one module in all of them.

    Args:
        check: called with all stages before any weights are read.

    Raises:
        LdmkitError: those of `ldmkit.load`, and of a stage's folder; each names the stage. Those of `check`.
    """
    where, mapped = check_device(device), instance_of(mapped, bool, "mapped")
    made: dict[str, Unfilled] = {}
    shared: dict[str, dict[str, Part]] = {}
    before: dict[str, tuple[PipelineSpec, Mapping[str, Part]]] = {}
    for name, stage in source.cascade.stages.items():
        with at_stage(name):
            opened = source.stage(name)
            shared[name] = shared_parts(name, stage, opened.spec, before)
            made[name] = _unfilled(opened, shared[name])
        before[name] = (opened.spec, made[name].parts.items())
    check({name: Composed(**one.arguments) for name, one in made.items()})
    filled: dict[str, dict[str, Any]] = {}
    for name, one in made.items():
        with at_stage(name):
            kept = check_dtype(one.source.dtype if dtype is None else dtype)
            filled[name] = _filled(one, where, kept, mapped, shared[name])
    return filled


def loading_options(
    *,
    config: str | Path | None = None,
    ema: bool | None = None,
    variant: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> dict[str, Any]:
    """Those arguments of `ldmkit.load` that were given and are recorded in recipes."""
    given = {"config": None if config is None else str(Path(config).absolute()), "ema": ema, "variant": variant}
    given["dtype"] = None if check_dtype(dtype) is None else str(dtype)
    return {key: value if key == "ema" else str(value) for key, value in given.items() if value is not None}


def open_source(
    source: str | Path,
    *,
    config: str | Path | None = None,
    ema: bool | None = None,
    variant: str | None = None,
    verify: Verify = "fast",
) -> Source:
    """The reader for a source. After loading, its report lists which keys were used or ignored.

    Raises:
        SourceError: not found (lists the bundled names), or in an unknown format; `no-digests` if `verify` is "full".
        InputError: `no-variants`: a variant is requested, but the format has only one set of weights; `not-taken`: the
            reader does not use `config` or `ema`.
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
    if path.is_dir() and (is_native(path) or is_part(path) or is_cascade(path)):
        given = {"config": yaml, "ema": ema, "variant": variant}
        if named := [name for name, value in given.items() if value is not None]:
            what = "config, ema and variant do not apply to a saved pipeline, which has a spec and one set of weights"
            raise InputError("not-for-native", what, where=named[0])
        cascade = partial(CascadeFolder, opened=_stage_source)
        kinds = ((is_native, NativeFolder), (is_cascade, cascade), (is_part, PartFolder))
        opened: Source | None = next(folder(path, verify) for found, folder in kinds if found(path))
    else:
        if verify == "full":
            raise no_digests(origin)
        identify = manager().hook.ldmkit_identify_checkpoint
        opened = identify(path=path, config=yaml, ema=ema, variant=variant)
    if opened is None:
        raise unrecognised(path)
    if variant is not None and not opened.has_variants:
        what = f"variant={variant!r}: this format has one set of weights, or its reader does not support variants"
        raise InputError("no-variants", what, where=origin, fits="a diffusers folder, or no variant")
    for name, option in (("config", config), ("ema", ema)):
        if option is not None and name not in opened.takes:
            what = f"{name}={shown(str(option))} does not apply to this format, or its reader does not support it"
            raise InputError("not-taken", what, where=origin, fits=f"no {name}")
    opened.origin = origin
    return opened


def _stage_source(folder: Path, verify: Verify) -> Source:
    """The source of a cascade's stage; its name in errors is its folder's."""
    source = open_source(folder, verify=verify)
    if isinstance(source, CascadeSource):
        raise SourceError("cascade", "a stage is one pipeline, and this is a cascade", where=str(folder))
    return source


def _fill(
    parts: Parts, spec: PipelineSpec, found: Sequence[FoundPart], filling: _Filling, ready: Mapping[str, Part]
) -> None:
    """Load the weights of every part that is not `ready`; parts with `shares` use the weights of another part."""
    modules: dict[str, Any] = {**parts.items()}
    owners = owners_of(spec.conditioners)
    for part in found:
        if part.path in modules and part.path not in owners and part.path not in ready:
            filling.fill(modules[part.path], part)
    for path, owner in owners.items():
        if path not in ready:
            share(modules[path], modules[owner])
            filling.load_assets(modules[path], path)
    for module in modules.values():
        module.eval().requires_grad_(False)


class _Filling(NamedTuple):
    """How weights are loaded: the source, device and dtype, and whether they are memory-mapped."""

    source: Source
    device: torch.device
    dtype: torch.dtype | None
    mapped: bool

    def fill(self, module: Part, part: FoundPart) -> None:
        """Load a part's weights and other files."""
        count = sum(parameter.numel() for parameter in module.parameters())
        options: dict[str, Any] = {"device": self.device, "dtype": self.dtype, "mapped": self.mapped}
        try:
            with memory(f"loading {part.path}", f"{count:,} parameters"):
                assign(module, self.source.tensors(part.path), f"{self.source.origin} {part.path}", **options)
        except WeightsError as error:
            blame_version(error, part.spec)
            raise
        self.load_assets(module, part.path)

    def load_assets(self, module: Part, path: str) -> None:
        """Load a part's other files (vocabularies)."""
        if (folder := self.source.assets(path)) is not None:
            module.load_assets(folder)


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
        spec: spec of the part.
        path: path of the part in the source (`codec`, `conditioners.text`).
        where: path of the spec in errors; None for `path`.
    """
    instance_of(mapped, bool, "mapped")
    found = find_part_alone(kind, spec, path)
    with on_meta():
        part = module_of(found[0]._replace(path=where or path))
    _Filling(source, device, dtype, mapped).fill(part, found[0])
    _warn_of_versions(source, found)
    return part


def _warn_of_versions(source: Source, parts: Sequence[FoundPart], defaults: Defaults | None = None) -> None:
    """Warn once if the installed versions differ from those recorded in a saved pipeline."""
    bundled = bundled_models().get(source.origin)
    found = differences(parts, defaults, None if bundled is None else bundled.dist)
    if found:
        source.report.notes += found
        warnings.warn(f"{source.origin}: {'; '.join(found)}", stacklevel=caller_level())
