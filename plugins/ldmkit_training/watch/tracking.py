"""Logging of metrics: log.jsonl always, and accelerate's trackers, TensorBoard by default."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from ldmkit import InputError, Value, suggest
from ldmkit_training.watch.lines import Lines

LOG = "log.jsonl"


class TrackingSection(Value):
    """
    Args:
        to: trackers by accelerate's names (tensorboard, wandb, aim, mlflow, comet_ml, clearml, dvclive, swanlab ...).
        every: steps between two lines of the log.
        project: project name, for trackers that have projects.
    """

    to: tuple[str, ...] = ("tensorboard",)
    every: int = Field(default=20, ge=1)
    project: str = "ldmkit"


class Tracker:
    """A run's log and trackers, in the process that writes.

    Args:
        section: the recipe's section.
        out: the run folder.
        start: completed optimiser steps; later entries of an earlier process are removed from the log (and from
            TensorBoard's view).
        config: the resolved recipe, for trackers that display it.

    Raises:
        InputError: `unknown-tracker`; `tracker-missing`: the recipe names one whose package is not installed.
    """

    def __init__(
        self, section: TrackingSection, out: Path, *, start: int = 0, config: Mapping[str, Any] | None = None
    ) -> None:
        self.section = section
        self.lines = Lines(out / LOG)
        self.lines.cut(start)
        self._began = time.monotonic()
        asked = "to" in section.model_fields_set
        names = dict.fromkeys(section.to)
        self.trackers = [made for name in names if (made := _tracker(name, section, out, start, config, asked))]

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log numbers by name after optimiser step `step`; NaN and infinities are null in log.jsonl."""
        numbers = {name: float(value) for name, value in figures.items()}
        seconds = round(time.monotonic() - self._began, 3)
        written = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self.lines.append({"step": step, "seconds": seconds, **written})
        for tracker in self.trackers:
            tracker.log(numbers, step=step)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Send a picture to those trackers that accept pictures."""
        for tracker in self.trackers:
            if tracker.name == "tensorboard":
                tracker.tracker.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
            elif hasattr(tracker, "log_images"):
                tracker.log_images({name: [image]}, step=step)

    def close(self) -> None:
        """Flush and close the trackers."""
        for tracker in self.trackers:
            tracker.finish()
        self.trackers = []


def check_trackers(section: TrackingSection) -> None:
    """Check that the trackers named in a recipe are available; raises as `Tracker` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning comes once, when they are opened
        for name in section.to:
            _kind(name, "to" in section.model_fields_set)


def _kind(name: str, asked: bool) -> Any:
    """A tracker's class; None if it is not installed and not explicitly requested."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = {str(key): kind for key, kind in LOGGER_TYPE_TO_CLASS.items()}
    if name not in known:
        raise InputError("unknown-tracker", f"no tracker {name!r}", where="tracking.to", fits=suggest(name, known))
    if name not in {str(found) for found in get_available_trackers()}:
        what, fits = f"the package of tracker {name!r} is not installed", f"pip install {name}, or tracking: {{to: []}}"
        if asked:
            raise InputError("tracker-missing", what, where="tracking.to", fits=fits)
        warnings.warn(f"{what}: figures go to {LOG} only ({fits})", stacklevel=4)
        return None
    return known[name]


def _tracker(
    name: str, section: TrackingSection, out: Path, start: int, config: Mapping[str, Any] | None, asked: bool
) -> Any:
    from accelerate import PartialState

    kind = _kind(name, asked)
    if kind is None:
        return None
    PartialState()
    options: dict[str, Any] = {"purge_step": start + 1} if name == "tensorboard" and start else {}
    folder = name if name == "tensorboard" else section.project
    made = kind(folder, str(out), **options) if kind.requires_logging_directory else kind(folder)
    if hasattr(made, "start"):  # since accelerate 1.9 trackers are opened separately from their construction
        made.start()
    if config is not None and name != "tensorboard":  # there the recipe would appear as another "run"
        made.store_init_configuration(_flat(config))
    return made


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
    return flat
