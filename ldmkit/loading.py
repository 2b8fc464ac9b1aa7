"""`ldmkit.load` and its siblings: loading models from sources of any known format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ldmkit.cascade import Cascade, cascade_of
from ldmkit.contracts.adapter import Adapter
from ldmkit.contracts.arguments import check_device as check_device
from ldmkit.contracts.arguments import check_dtype as check_dtype
from ldmkit.contracts.arguments import list_of
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.judges import Classifier
from ldmkit.errors import InputError, SourceError
from ldmkit.files.numbers import plain
from ldmkit.models.ambient import usual_device
from ldmkit.models.cascade_source import CascadeSource
from ldmkit.models.reading import fill_model, loading_options, open_source, part_of
from ldmkit.models.source import Source
from ldmkit.models.spec import Verify
from ldmkit.models.weights import check_finite
from ldmkit.pipeline import Pipeline


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
    """Load a pipeline from a source of any known format. For a cascade use `ldmkit.Cascade.load`.

    Args:
        source: a saved pipeline, a diffusers folder, a CompVis or single-file checkpoint (.ckpt, .safetensors), the
            name of a bundled model, or `hf:org/name[@revision]` on the hub.
        config: the original YAML configuration, if the checkpoint alone does not determine the model.
        ema: averaged (True) or raw (False) weights if the source has both; None: as its YAML says (`use_ema`), else
            averaged. The report says which were used.
        variant: variant of the weights in a diffusers folder, such as `fp16` in `model.fp16.safetensors`; parts without
            it are read from their default weights, with a warning. None: the default weights.
        device: device of the model; None: the CPU.
        dtype: dtype of floating-point weights; None: the model's default, else the dtype in the file.
        verify: how the files of a saved folder are compared with their digests. "fast" reads each file once, at memory
            speed, and detects every flipped bit; "full" uses SHA-256 and refuses files without digests; "off".
        mapped: memory-map weights where possible, which takes neither time nor memory. The files must then stay
            unchanged: a run refuses weights whose file has been written to. False copies them.

    Raises:
        SourceError, SpecError, PluginError, CompositionError, WeightsError: checked in this order; nothing is left
            half-loaded. SourceError `cascade`: the folder holds a cascade of pipelines.
    """
    return Pipeline.load(
        source, config=config, ema=ema, variant=variant, device=device, dtype=dtype, verify=verify, mapped=mapped
    )


def load_model(
    source: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Verify = "fast",
    **reading: Any,
) -> Pipeline | Cascade:
    """Load a pipeline or a cascade, whichever the source holds; arguments and errors as for `load`. Used by commands.

    Args:
        reading: `config`, `ema` and `variant`.
    """
    opened = open_source(source, verify=verify, **reading)
    given = loading_options(dtype=dtype, **reading)
    if isinstance(opened, CascadeSource):
        return cascade_of(opened, device=device, dtype=dtype, load_options=given)
    return pipeline_of(opened, device=device, dtype=dtype, load_options=given)


def pipeline_of(
    source: Source,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    load_options: Mapping[str, Any] | None = None,
    mapped: bool = True,
) -> Pipeline:
    """Compose the pipeline that a source describes and fill in its weights; errors as for `load`."""
    filled = fill_model(source, device=device, dtype=dtype, mapped=mapped)
    return Pipeline(**filled, load_options=load_options)


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
    """Load only the first stage, from the sources of `load` or from files that hold nothing else.

    Args:
        scale, shift: standardise latents as (raw - shift) * scale: a number, or one per channel; None: as the source
            says. A first stage's own file often does not say: such a codec encodes and decodes, but composes with
            no denoiser.
        verify, mapped: as for `load`; only the codec's files of a saved pipeline are compared.
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
    """A scale or shift as the config takes it; the config checks the numbers."""
    single = plain(value)
    return single if isinstance(single, float | int) else list_of(value, where, "scale-type", "a number, or a list")


@usual_device()
def load_classifier(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    verify: Verify = "fast",
    mapped: bool = True,
) -> Classifier:
    """Load a classifier of noisy latents from the folder that its training saved, or from guided-diffusion's file.

    Args:
        config: YAML with the flags of such a file, if none is beside it.

    Raises:
        SourceError: `no-classifier`: the source holds something else; and the errors of `load`.
    """
    opened = open_source(source, config=config, verify=verify)
    spec, where = opened.classifier_spec, check_device(device)
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
    """Load one adapter, to be attached with `Pipeline.with_adapter`.

    Args:
        source: a folder of diffusers, or a file, of a network that reads hints (ControlNet, T2I-Adapter; see
            docs/control.md); or any pipeline that `load` reads and that has an adapter.
        name: which adapter, if the source has several.
        config, variant, device, dtype, verify, mapped: as for `load`.

    Raises:
        SourceError: `no-adapter`, and what `load` raises.
        WeightsError: `not-finite`: NaN or infinity among its weights.
        InputError: `adapter-name`: the source has several adapters, or none of that name.
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
    check_finite(adapter, opened.origin)
    return adapter.eval().requires_grad_(False)
