"""The model that a file of changes was made for, as it says, beside the pipeline's."""

from __future__ import annotations

import re
from typing import Any

from ldmkit_denoisers.unet import UNet

from ldmkit import SourceError
from ldmkit.models.composed import Composed
from ldmkit_checkpoints.lora.said import Said

_VERSIONS = (
    (r"sd_v1", "Stable Diffusion 1"),
    (r"sd_v2", "Stable Diffusion 2"),
    (r"sdxl_refiner", "Stable Diffusion XL refiner"),
    (r"sdxl", "Stable Diffusion XL"),
    (r"sd3", "Stable Diffusion 3"),
    (r"flux", "FLUX"),
    (r"stable-diffusion-v1", "Stable Diffusion 1"),
    (r"stable-diffusion-v2", "Stable Diffusion 2"),
    (r"stable-diffusion-xl-.*refiner", "Stable Diffusion XL refiner"),
    (r"stable-diffusion-xl", "Stable Diffusion XL"),
    (r"stable-diffusion-3", "Stable Diffusion 3"),
)
"""How `ss_base_model_version` and `modelspec.architecture` begin."""

_REPOSITORIES = (
    (r"stable-diffusion-v1|sd-?v?1[.-][45]", "Stable Diffusion 1"),
    (r"stable-diffusion-2", "Stable Diffusion 2"),
    (r"stable-diffusion-xl-refiner", "Stable Diffusion XL refiner"),
    (r"stable-diffusion-xl|sdxl", "Stable Diffusion XL"),
    (r"stable-diffusion-3", "Stable Diffusion 3"),
    (r"flux", "FLUX"),
)
"""The same in the names of repositories, which anyone may choose."""

_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}
_PREDICTIONS = {"epsilon": "eps", "eps": "eps", "v": "v", "v_prediction": "v", "sample": "x0"}


def base_of(said: Said) -> tuple[str, str] | None:
    """The family of the base, and where the file says so."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        if (text := said.text(key)) and (found := _family(text, _VERSIONS, begins=True)):
            return found, f"{key} {text!r}"
    return None


def named_base_of(said: Said) -> tuple[str, str] | None:
    """The family that the name of a base suggests."""
    config = said.config or {}
    listed = said.card.get("base_model")
    names = {"README.md: base_model": listed[0] if isinstance(listed, list) and listed else listed}
    names |= {
        "base_model_name_or_path": config.get("base_model_name_or_path"),
        "ss_sd_model_name": said.text("ss_sd_model_name"),
    }
    for key, name in names.items():
        if isinstance(name, str) and (found := _family(name, _REPOSITORIES, begins=False)):
            return found, f"{key} {name!r}"
    return None


def family_of(pipeline: Composed) -> str | None:
    """The family of a pipeline's network; None: it is like none of the published ones."""
    if not isinstance(pipeline.denoiser, UNet):
        return None
    config = pipeline.denoiser.config
    kinds = [spec.type for spec in pipeline.wiring.values()]
    if config.vector == "mlp" and "size-codes" in kinds:
        return "Stable Diffusion XL" if kinds.count("clip-text") == 2 else "Stable Diffusion XL refiner"
    return _WIDTHS.get(config.context_dim or 0) if config.vector == "none" else None


def compare(said: Said, pipeline: Composed, where: str) -> list[str]:
    """What the user is told of another base.

    Raises:
        SourceError: `other-base`: the file says that it is for another family than the pipeline's.
    """
    own, stated, remarks = family_of(pipeline), base_of(said), list[str]()
    if stated is not None and own is not None and stated[0] != own:
        what = f"it was made for {stated[0]} ({stated[1]}), and this pipeline is {own}"
        raise SourceError("other-base", what, where=where, fits=f"a file for {own}")
    named = named_base_of(said) if stated is None else None
    if named is not None and own is not None and named[0] != own:
        remarks.append(f"{named[1]} sounds like {named[0]}, and this pipeline is {own}")
    return remarks + _process(said, pipeline.process)


def prediction_of(said: Said) -> tuple[str, str] | None:
    """What the network predicted in training ("eps", "v", "x0"), and where the file says so."""
    if (text := said.text("modelspec.prediction_type").lower()) in _PREDICTIONS:
        return _PREDICTIONS[text], f"modelspec.prediction_type {text!r}"
    version, architecture = said.text("ss_base_model_version"), said.text("modelspec.architecture")
    if said.flag("ss_v_parameterization"):
        return "v", "ss_v_parameterization"
    if re.fullmatch(r"sd_v[12](_768)?_v", version):
        return "v", f"ss_base_model_version {version!r}"
    if re.match(r"stable-diffusion-v2-768-v", architecture):
        return "v", f"modelspec.architecture {architecture!r}"
    return None


def _process(said: Said, process: Any) -> list[str]:
    remarks, own, stated = [], getattr(process, "prediction", None), prediction_of(said)
    if stated is not None and own is not None and stated[0] != own:
        remarks.append(
            f"it was trained to predict {stated[0]} ({stated[1]}), and this pipeline's network predicts {own}"
        )
    zero, ours = said.flag("ss_zero_terminal_snr"), getattr(process, "zero_terminal_snr", None)
    if zero is not None and ours is not None and zero != ours:
        has, lacks = ("has none", "with") if zero else ("has it", "without")
        remarks.append(f"it was trained {lacks} a zero terminal SNR (ss_zero_terminal_snr), and this pipeline {has}")
    return remarks


def _family(text: str, patterns: tuple[tuple[str, str], ...], *, begins: bool) -> str | None:
    search = re.match if begins else re.search
    return next((family for pattern, family in patterns if search(pattern, text.lower())), None)
