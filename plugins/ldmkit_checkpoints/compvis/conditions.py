"""Plans for the conditioners of an original yaml; signals of missing encoders are passed in by the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import ConditionerSpec, PartSpec, SourceError
from ldmkit_checkpoints.compvis.plan import PartPlan
from ldmkit_checkpoints.compvis.text_config import PlannedConditioner, conditioners_from_compvis, conditioners_from_sgm
from ldmkit_checkpoints.compvis.text_keys import conditioner_keys
from ldmkit_checkpoints.conditioners import given_vector, masked_image
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.keys import prefixed
from ldmkit_checkpoints.singlefile.models import PLANES
from ldmkit_checkpoints.unread import ignorable_conditioner_key

_GUIDED = {"clip-text": 7.5, "ldm-text": 5.0, "label": 3.0}
"""Guidance scales of the published scripts, for conditions with dropout in training."""

_FROZEN = frozenset(["clip-text", "clip-pooled", "t5-text"])
"""Pretrained encoders, which some files leave out."""

_HOLED = ("mask", "masked_image")
"""`concat_keys` of the inpainting models, also the default."""


@dataclass
class Conditions:
    """The conditioners of a model by name, changes they require in the denoiser's config, and notes."""

    parts: dict[str, PartPlan] = field(default_factory=dict)
    unet: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ignore(self, key: str) -> str | None:
        """Reason to ignore a conditioner's key; None if it must be used, or is not a conditioner's."""
        ours = key.startswith(("cond_stage_model.", "conditioner."))
        return ignorable_conditioner_key(key) if ours else None


def default_guidance(conditions: Conditions) -> PartSpec:
    """Classifier-free guidance at the published scale if the model has a null condition, else none."""
    for plan in conditions.parts.values():
        config, kind = plan.spec.config, plan.spec.type
        if kind in _GUIDED and (kind != "label" or config.get("null_class") is not None):
            return PartSpec(type="cfg", config={"scale": _GUIDED[kind]})
    return PartSpec(type="none")


def plan_conditions(params: Mapping[str, Any], unet: UNetConfig, inventory: Inventory, where: str) -> Conditions:
    """Plan the conditioners of LatentDiffusion's parameters.

    Raises:
        SourceError: an unknown kind of conditioning.
    """
    stage = params.get("cond_stage_config", "__is_unconditional__")
    if stage == "__is_unconditional__":
        return Conditions()
    way = params.get("conditioning_key") or ("concat" if params.get("concat_mode", True) else "crossattn")
    if way not in ("concat", "crossattn", "hybrid", "adm"):
        fits = "crossattn, concat, hybrid, adm"
        raise SourceError("unsupported", f"conditioning_key {way!r}", where=where, fits=fits)
    section = f"{where}.cond_stage_config"
    if way in ("crossattn", "adm") and isinstance(stage, Mapping) and stage.get("target") == "torch.nn.Identity":
        return _given(unet, "the config's conditioner is an identity")
    if way == "adm":
        what = f"conditioning_key 'adm' with the conditioner {stage!r}"
        raise SourceError(
            "unsupported",
            what,
            where=section,
            fits="torch.nn.Identity, for a class or a vector passed in by the caller",
        )
    planned = conditioners_from_compvis(stage, params, unet.channels, section)
    if way == "hybrid":
        planned.append(_masked(unet, where, params.get("concat_keys", _HOLED)))
    return _collected(planned, unet, inventory)


def plan_embedders(section: Mapping[str, Any], unet: UNetConfig, inventory: Inventory, where: str) -> Conditions:
    """Plan the conditioners of sgm's GeneralConditioner.

    Without a negative prompt, the base model's text conditions are zeros, as in its sampling scripts; the refiner's
    encode the empty prompt.
    """
    planned = conditioners_from_sgm(section, where)
    if unet.plane_channels:
        planned.append(_masked(unet, where))
    found = _collected(planned, unet, inventory)
    base = any(item.layout == "hf" for item in planned)
    for name, plan in found.parts.items():
        if base and plan.spec.type in _FROZEN:
            spec = plan.spec.model_copy(update={"null": "zero"})
            found.parts[name] = PartPlan(spec, plan.keymap)
    found.unet["context_join"] = "feature"
    return found


def _collected(planned: Sequence[PlannedConditioner], unet: UNetConfig, inventory: Inventory) -> Conditions:
    absent = [p for p in planned if p.spec["type"] in _FROZEN and p.layout and not inventory.has(p.prefix)]
    if absent:
        return _given(unet, f"the file holds no text encoder under {absent[0].prefix!r}")
    found = Conditions()
    for item in planned:
        spec = ConditionerSpec.of(item.spec, item.name)
        flat = item.layout == "hf" and not inventory.has(f"{item.prefix}text_model.")
        layout = "hf-flat" if flat else item.layout  # transformers 5 writes CLIP without the prefix `text_model.`
        keymap = conditioner_keys(spec.type, spec.config, layout) if layout else {}
        found.parts[item.name] = PartPlan(spec, prefixed(keymap, foreign=item.prefix))
    return found


def _given(unet: UNetConfig, why: str) -> Conditions:
    """Signals passed in by the caller instead of encoders, one for each slot of the denoiser."""
    wanted: dict[str, ConditionerSpec] = {}
    if unet.context_dim is not None:
        config = {"kind": "tokens", "dim": unet.context_dim}
        wanted["context"] = ConditionerSpec(type="given", config=config, slot="context")
    if unet.vector != "none":
        wanted["vector"] = given_vector(unet)
    notes = [f"{why}: pass its conditions in, as {' and '.join(map(repr, wanted))}"]
    return Conditions({name: PartPlan(spec) for name, spec in wanted.items()}, notes=notes)


def _masked(unet: UNetConfig, where: str, keys: Sequence[str] = _HOLED) -> PlannedConditioner:
    """Plan the condition of Stable Diffusion's inpainting models, SDXL's included.

    Raises:
        SourceError: planes of another model.
    """
    if tuple(keys) != _HOLED:
        raise SourceError("unsupported", f"concat_keys {list(keys)}", where=where, fits=f"{list(_HOLED)}")
    if unet.plane_channels != unet.channels + 1:
        what = f"a U-Net of {unet.in_channels} input channels, {unet.channels} of them the noisy latent's"
        known = f" ({PLANES[unet.in_channels]})" if unet.in_channels in PLANES else ""
        fits = f"{2 * unet.channels + 1}: the latent, a mask, and the latent of the masked picture"
        raise SourceError("unsupported", what + known, where=where, fits=fits)
    return PlannedConditioner("masked-image", masked_image(unet.channels).model_dump(exclude_defaults=True), "", "")
