"""What files that are made for few steps ask of a run: LCM, TCD, Hyper-SD, Lightning, Turbo, DMD2."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ldmkit import Defaults, SourceError, SpecError
from ldmkit.models.composed import Composed
from ldmkit_checkpoints.diffusers.scheduler import SCHEDULES, read_scheduler
from ldmkit_checkpoints.lora.said import Said

OWN = "ldmkit.defaults"
"""Key of a header's metadata: a JSON object with those fields of `Defaults` that a call may lock."""

FIELDS = ("sampler", "grid", "guidance", "steps")


class Method(NamedTuple):
    """How networks of a method are sampled, by their papers and model cards.

    Args:
        name: for people.
        scheduler: as a config of diffusers.
        steps: where the file says nothing; None: each file is for one number of steps.
    """

    name: str
    scheduler: Mapping[str, Any]
    steps: int | None = None


_TRAILING = {"timestep_spacing": "trailing"}
METHODS: Mapping[str, Method] = {
    "lcm": Method("LCM", {"_class_name": "LCMScheduler"}, 4),
    "tcd": Method("TCD", {"_class_name": "TCDScheduler"}, 4),
    "hyper": Method("Hyper-SD", {"_class_name": "DDIMScheduler", "clip_sample": False, **_TRAILING}),
    "lightning": Method("SDXL-Lightning", {"_class_name": "EulerDiscreteScheduler", **_TRAILING}),
    "turbo": Method("Turbo", {"_class_name": "EulerAncestralDiscreteScheduler", **_TRAILING}, 4),
    "dmd2": Method("DMD2", {"_class_name": "LCMScheduler"}, 4),
}
_TAGS = {
    "lcm": "lcm", "lcm-lora": "lcm", "latent-consistency": "lcm", "latent-consistency-model": "lcm",
    "latent-consistency-models": "lcm", "tcd": "tcd", "tcd-lora": "tcd", "hyper-sd": "hyper", "hyper-sdxl": "hyper",
    "sdxl-lightning": "lightning", "sdxl-turbo": "turbo", "sd-turbo": "turbo", "dmd2": "dmd2", "dmd2-lora": "dmd2",
}  # fmt: skip
_IN_NAMES = (
    ("lcm", r"lcm|latent[-_ ]?consistency"),
    ("tcd", r"tcd"),
    ("hyper", r"hyper[-_ ]?sd(xl|15?)?|hyper(?=[-_ ]?\d*[-_ ]?steps?)"),
    ("lightning", r"lightning"),
    ("turbo", r"turbo"),
    ("dmd2", r"dmd2?"),
)
_SCHEDULERS = {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}
_TEXTS = ("modelspec.title", "ss_output_name", "modelspec.usage_hint", "modelspec.description", "ss_training_comment")


class Asked(NamedTuple):
    """Fields of `Defaults` that a file asks for, and what the user is told."""

    defaults: dict[str, Any]
    remarks: list[str]


def asked_by(said: Said, pipeline: Composed, where: str) -> Asked:
    """What a file asks of a run: from what it says; what its name suggests is advice alone.

    Raises:
        SourceError: `metadata`: the defaults in its header are none.
    """
    if OWN in said.metadata:
        found = _own(said.metadata[OWN], where)
        return Asked(found, [_note("its header", found)])
    method, by = _method(said)
    if method is None and said.scheduler is None:
        return Asked({}, _advice(said))
    if said.scheduler is not None:
        scheduler, by = said.scheduler, "scheduler_config.json"
    else:
        assert method is not None
        scheduler = METHODS[method].scheduler
    if (spoken := _betas(pipeline)) is None:
        what = f"it is made for few steps ({by}) of a discrete process, which this pipeline has not"
        return Asked({}, [f"{what}: sampler, grid and guidance are left as they are"])
    try:
        parts = read_scheduler({**spoken, **scheduler}, f"{where}: scheduler_config.json")
    except SourceError as error:
        what = f"it is made for few steps ({by}), in a way that this pipeline's process does not have"
        return Asked({}, [f"{what} ({error.what}): nothing is changed"])
    found = {"sampler": parts.sampler.model_dump(), "grid": parts.grid.model_dump()}
    if method == "dmd2" and said.scheduler is None:
        found["grid"] = {"type": "trailing"}  # 999, 749, 499, 249
    steps, scale = _parameters(said)
    if method is not None or scale is not None:
        found["guidance"] = {"type": "none"} if (scale or 0) <= 1 else {"type": "cfg", "config": {"scale": scale}}
    locked = list(found)
    remarks = []
    if steps is None and method is not None:
        steps = METHODS[method].steps
        if steps is None:
            count = _count(said.name)
            named = f" (its name speaks of {count})" if count else ""
            remarks.append(f"it does not say for how many steps it was made{named}: give steps=N (--steps N)")
    elif steps is not None:
        locked.append("steps")
    if steps is not None:
        found["steps"] = steps
    found["locked"] = locked
    return Asked(found, [_note(by, found), *remarks])


def stated_method(said: Said) -> str | None:
    """What the file says of few steps, in words."""
    if OWN in said.metadata:
        return f"its header: {said.metadata[OWN]}"
    method, by = _method(said)
    return None if method is None else f"{METHODS[method].name}, by {by}"


def _own(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.keys() - {*FIELDS, "locked"}:
            raise ValueError("fields")
        found = Defaults.of(data, OWN).model_dump(include=set(data))
    except (ValueError, RecursionError, SpecError) as error:
        fits = f"a JSON object of {', '.join(FIELDS)} and locked"
        raise SourceError("metadata", f"{OWN!r} holds no defaults: {error}", where=where, fits=fits) from None
    return {**found, "locked": data.get("locked") or [name for name in FIELDS if name in data]}


def _method(said: Said) -> tuple[str | None, str]:
    """The method that the file says it is of, and where; None: it says none, or several."""
    if said.scheduler is not None and (name := said.scheduler.get("_class_name")) in _SCHEDULERS:
        return _SCHEDULERS[str(name)], "scheduler_config.json"
    named = {_TAGS[tag] for tag in said.tags if tag in _TAGS}
    return (named.pop(), "its tags") if len(named) == 1 else (None, "")


def _parameters(said: Said) -> tuple[int | None, float | None]:
    """Steps and guidance scale of the model card (`inference.parameters`)."""
    inference = said.card.get("inference")
    parameters = inference.get("parameters") if isinstance(inference, dict) else None
    given = parameters if isinstance(parameters, dict) else {}
    steps, scale = given.get("num_inference_steps"), given.get("guidance_scale")
    sound = type(scale) in (int, float) and 0 <= scale <= 100
    return steps if type(steps) is int and 0 < steps <= 1000 else None, float(scale) if sound else None


def _betas(pipeline: Composed) -> dict[str, Any] | None:
    """Fields of a scheduler's config that the pipeline's process decides."""
    process: Any = pipeline.process
    names = {ours: theirs for theirs, ours in SCHEDULES.items()}
    if getattr(process, "schedule", None) not in names:
        return None
    betas = {"beta_start": process.beta_start, "beta_end": process.beta_end, "num_train_timesteps": process.steps}
    return {"beta_schedule": names[process.schedule], **betas}


def _advice(said: Said) -> list[str]:
    """A remark where names and titles suggest a method that nothing says."""
    words = {"name": said.name, **{key: said.metadata.get(key, "") for key in _TEXTS}}
    for place, text in words.items():
        fitting = [name for name, pattern in _IN_NAMES if re.search(rf"(?<![a-z])({pattern})(?![a-z])", text.lower())]
        if not fitting:
            continue
        method = METHODS[fitting[0]]
        steps = _count(text) or method.steps or "N"
        parts = read_scheduler({"beta_schedule": "scaled_linear", **method.scheduler})
        grid = {"type": "trailing"} if fitting[0] == "dmd2" else parts.grid.model_dump(include={"type", "config"})
        options = ",".join(f"{key}={json.dumps(value)}" for key, value in grid.get("config", {}).items())
        words_of_grid = f"{grid['type']}:{options}" if options else grid["type"]
        asked = f"--sampler {parts.sampler.type} --grid {words_of_grid} --guidance none --steps {steps}"
        what = f"its {place} suggests that it is made for few steps ({method.name}), which the file does not say"
        return [f"{what}: nothing is changed. If it is, give {asked} (in Python sampler=, grid=, guidance=, steps=)"]
    return []


def _count(text: str) -> int | None:
    found = re.search(r"(?<!\d)(\d{1,2})[-_ ]?steps?", text.lower())
    return int(found[1]) if found else None


def _note(by: str, found: Mapping[str, Any]) -> str:
    words = []
    for name in FIELDS:
        if name in found:
            value = found[name]
            words.append(f"{name} {value['type'] if isinstance(value, Mapping) else value}")
    return f"made for few steps, by {by}: {', '.join(words)} are the pipeline's defaults now, and locked"
