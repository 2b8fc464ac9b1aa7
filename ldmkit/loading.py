"""`ldmkit.load`: a source of any known format becomes a pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.arguments import check_device as check_device
from ldmkit.contracts.arguments import check_dtype as check_dtype
from ldmkit.contracts.arguments import instance_of, list_of
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.judges import Classifier
from ldmkit.contracts.latents import latents_of
from ldmkit.contracts.part import Part
from ldmkit.contracts.value import plain
from ldmkit.errors import InputError, SourceError, WeightsError, shown
from ldmkit.models.compose import Parts, build, compose
from ldmkit.models.digests import no_digests
from ldmkit.models.locate import bundled_models, check_config, locate
from ldmkit.models.meta import on_meta
from ldmkit.models.provenance import Named, blame_version, differences, named_parts, require, with_inner
from ldmkit.models.source import NativeFolder, PartFolder, Source, is_native, is_part, unrecognised
from ldmkit.models.spec import Defaults, PartSpec, PipelineSpec, Verify, check_verify
from ldmkit.models.weights import assign
from ldmkit.pipeline import Pipeline
from ldmkit.plugins.hooks import manager
from ldmkit.run.ambient import usual_device
from ldmkit.run.guards import memory


@usual_device()
def load(
    source: str | Path,
    *,
    config: str | Path | None = None,
    ema: bool | None = None,
    variant: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Verify = "fast",
    mapped: bool = True,
) -> Pipeline:
    """A pipeline from anything that holds one.

    Args:
        source: a saved pipeline, a diffusers folder, a CompVis or single-file checkpoint (.ckpt, .safetensors),
            the name of a bundled model, or `hf:org/name[@revision]` on the hub.
        config: the original yaml, where a checkpoint alone does not tell.
        ema: averaged (True) or raw (False) weights; None: averaged where the file has them. The report says which.
        variant: of the weights in a diffusers folder, as in `model.fp16.safetensors`; parts that lack it are read from
            their plain weights, with a warning. None: the plain ones.
        device: where to put it; None: the CPU.
        dtype: of floating weights; None: the model's own default, else as they are in the file.
        verify: how the files of a saved folder are compared with its digests. "fast" reads all of them once, at the
            speed of memory, and finds every flipped bit; "full" takes SHA-256, and refuses what has no digests; "off".
        mapped: leave weights in their files where that can be, which takes no memory and no time. Such files must stay
            as they are: a run refuses weights whose file has been written to. False copies them.

    Raises:
        SourceError, SpecError, PluginError, CompositionError, WeightsError: in this order of checking; nothing
            is left half-loaded.
    """
    opened = open_source(source, config=config, ema=ema, variant=variant, verify=verify)
    kept = check_dtype(dtype)
    given = {"config": None if config is None else str(Path(config).absolute()), "ema": ema, "variant": variant}
    given["dtype"] = None if kept is None else str(dtype)
    options = {key: value if key == "ema" else str(value) for key, value in given.items() if value is not None}
    return pipeline_of(opened, device=device, dtype=dtype, load_options=options, mapped=mapped)


def pipeline_of(
    source: Source,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    load_options: Mapping[str, Any] | None = None,
    mapped: bool = True,
) -> Pipeline:
    """Compose what a source describes and fill it with its weights; the errors of `load`."""
    source, mapped = instance_of(source, Source, "source"), instance_of(mapped, bool, "mapped")
    where, kept = check_device(device), check_dtype(source.dtype if dtype is None else dtype)
    spec = source.spec
    parts = compose(spec)
    fill(parts, spec, source, device=where, dtype=kept, mapped=mapped)
    parts.denoiser.latents = latents_of(parts.codec)
    _tell(source, named_parts(spec), spec.defaults)
    return Pipeline(parts, spec.conditioners, spec.defaults, origin=source.origin, load_options=load_options)


@usual_device()
def load_codec(
    source: str | Path,
    *,
    config: str | Path | None = None,
    ema: bool | None = None,
    variant: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    scale: float | Sequence[float] | None = None,
    shift: float | Sequence[float] | None = None,
    verify: Verify = "fast",
    mapped: bool = True,
) -> Codec:
    """The first stage alone, from the same sources and from files that hold nothing else.

    Args:
        scale, shift: of its latents, standardised = (raw - shift) * scale, a number or one a channel; None: what the
            source says. A first stage's own file often does not: such a codec encodes and decodes, and composes with
            no denoiser.
        verify, mapped: as for `load`; of a whole pipeline's folder the codec's files are compared.
    """
    opened = open_source(source, config=config, ema=ema, variant=variant, verify=verify)
    spec = opened.codec_spec
    given = {key: _figure(value, key) for key, value in (("scale", scale), ("shift", shift)) if value is not None}
    if given:
        spec = spec.model_copy(update={"config": {**spec.config, **given}})
    elif opened.assumption is not None:
        warnings.warn(f"{opened.origin}: {opened.assumption}", stacklevel=2)
    where, kept = check_device(device), check_dtype(opened.dtype if dtype is None else dtype)
    codec: Codec = part_of(opened, "codec", spec, "codec", device=where, dtype=kept, mapped=mapped)
    return codec.eval().requires_grad_(False)


def _figure(value: float | Sequence[float], where: str) -> float | list[float]:
    """A scale or shift as the config has it, which looks at the numbers themselves."""
    single = plain(value)
    return single if isinstance(single, float | int) else list_of(value, where, "scale-type", "a number, or a list")


@usual_device()
def load_classifier(
    source: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Verify = "fast",
    mapped: bool = True,
) -> Classifier:
    """A classifier of noisy latents, from the folder that its training saved.

    Raises:
        SourceError: `no-classifier`: it holds something else; and what `load` raises.
    """
    opened = open_source(source, verify=verify)
    if not isinstance(opened, PartFolder):
        raise SourceError("no-classifier", "there is no classifier in it", where=opened.origin)
    spec, where = opened.part_spec("classifier"), check_device(device)
    classifier: Classifier = part_of(
        opened, "classifier", spec, "classifier", device=where, dtype=check_dtype(dtype), mapped=mapped
    )
    return classifier.eval().requires_grad_(False)


def load_adapter(
    source: str | Path,
    *,
    name: str | None = None,
    config: str | Path | None = None,
    variant: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Verify = "fast",
    mapped: bool = True,
) -> Adapter:
    """One adapter alone, to be put to a pipeline with `Pipeline.with_adapter`.

    Args:
        source: a ControlNet's folder of diffusers; a file with cldm's keys of a ControlNet, prefixed by
            `control_model.` or not; or any pipeline that `load` reads and that has an adapter.
        name: which one, where the source has several.
        config, variant, device, dtype, verify, mapped: as for `load`.

    Raises:
        SourceError: `no-adapter`, and what `load` raises.
        InputError: `adapter-name`: there are several, or none of that name.
    """
    opened = open_source(source, config=config, variant=variant, verify=verify)
    offered = opened.adapters
    if not offered:
        raise SourceError("no-adapter", "there is no adapter in it", where=opened.origin)
    key = next(iter(offered)) if name is None and len(offered) == 1 else name
    if key is None or key not in offered:
        what = f"of the adapters in it, {name!r} names none"
        raise InputError("adapter-name", what, where="name", fits=", ".join(map(repr, offered)))
    where, kept = check_device(device), check_dtype(opened.dtype if dtype is None else dtype)
    adapter: Adapter = part_of(
        opened, "adapter", offered[key], f"adapters.{key}", device=where, dtype=kept, mapped=mapped
    )
    return adapter.eval().requires_grad_(False)


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
    _tell(source, iter(parts))
    return part


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


def _tell(source: Source, parts: Iterator[Named], defaults: Defaults | None = None) -> None:
    """Warn, once, about other versions than those that a saved pipeline names."""
    bundled = bundled_models().get(source.origin)
    found = differences(parts, defaults, None if bundled is None else bundled.dist)
    if found:
        source.report.notes += found
        warnings.warn(f"{source.origin}: {'; '.join(found)}", stacklevel=4)


def _load_assets(part: Part, path: str, source: Source) -> None:
    folder = source.assets(path)
    if folder is not None:
        part.load_assets(folder)
