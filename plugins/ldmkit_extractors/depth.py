"""Depth, by networks of transformers in a local folder."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ldmkit import Extractor, RunError, SourceError, read_json, to_levels
from ldmkit_extractors.soft import grey_levels
from ldmkit_extractors.weights import found, stamp

Array = np.ndarray[Any, Any]
Percent: TypeAlias = Annotated[float, Field(ge=0, le=100)]

INVERSE, METRES = "inverse", "metres"
KINDS = {"dpt": INVERSE, "depth_anything": INVERSE, "zoedepth": METRES, "glpn": METRES}
"""model_type of a config -> what the network predicts: inverse depth, large where near, or metres, large where far."""


SMALLEST = 32
"""Side of the smallest picture that all of them take."""


class Depth(Extractor):
    """Depth as brightness, near is white, by a network of transformers (the hint of `control_*_depth`).

    DPT (MiDaS), Depth Anything, ZoeDepth and GLPN, from a folder that holds config.json, preprocessor_config.json and
    the weights. Inverse depth (DPT, Depth Anything) is stretched from its smallest to its largest value; metres
    (ZoeDepth, GLPN, metric Depth Anything) from their 2nd to their 85th percentile, and inverted, as published. The
    network's map is brought to the picture's size bicubically, in float32 on the CPU. Pictures smaller than 32 pixels
    are continued by their edges for the network.

    Args:
        model: the folder. Nothing is downloaded.
        percentiles: of the map that become the ends of black and white, clipped beyond; None: those above.
    """

    reads: ClassVar[tuple[str, ...]] = ("model",)
    api: ClassVar[int] = 1

    model: str | None = None
    percentiles: tuple[Percent, Percent] | None = None

    def extract(self, value: Tensor) -> Tensor:
        folder = found(self.model, "depth:model=FOLDER", "a folder of a depth model of transformers", _ADVICE)
        network = _network(folder, stamp(folder))
        depth = network.depth(to_levels(value))
        if not np.isfinite(depth).all():
            raise RunError(
                "not-finite", "NaN or infinity in the depth map", where=str(folder), fits="undamaged weights"
            )
        metres = network.predicts == METRES
        low, high = np.percentile(depth, self.percentiles or ((2, 85) if metres else (0, 100)))
        near = (depth - low) / (high - low) if high > low else np.zeros_like(depth)
        return grey_levels(1 - near if metres and high > low else near)


_ADVICE = "Intel/dpt-hybrid-midas or LiheYoung/depth-anything-small-hf, by `hf download NAME --local-dir FOLDER`"


class _Network(NamedTuple):
    """A network, what prepares its pictures, and what it predicts."""

    model: Any
    processor: Any
    predicts: str

    def depth(self, levels: Array) -> Array:
        """The map (H, W) float64 of a picture (H, W, 3) uint8."""
        height, width = levels.shape[:2]
        levels = np.pad(levels, ((0, max(0, SMALLEST - height)), (0, max(0, SMALLEST - width)), (0, 0)), mode="edge")
        given = self.processor(images=levels, return_tensors="pt", input_data_format="channels_last")
        with torch.no_grad():
            predicted = self.model(**given).predicted_depth
        sides = levels.shape[:2]
        padded = self.model.config.model_type == "zoedepth" and bool(self.processor.do_pad)
        edges = [int(np.sqrt(side / 2) * 3) if padded else 0 for side in sides]  # what ZoeDepth's processor adds
        size = [side + 2 * edge for side, edge in zip(sides, edges, strict=True)]
        whole = F.interpolate(predicted[:, None], size=size, mode="bicubic", align_corners=False)[0, 0]
        inner = whole[edges[0] : edges[0] + height, edges[1] : edges[1] + width]
        return np.asarray(inner.double().numpy())


@lru_cache(maxsize=2)
def _network(folder: Path, _stamp: object) -> _Network:
    """The network in a folder, read once while its files are the same.

    Raises:
        SourceError: `not-depth`: of another kind; `unreadable`: transformers cannot read it.
    """
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in KINDS:
        what = f"its config.json is of {json.dumps(kind)}, not of a depth model"
        raise SourceError("not-depth", what, where=str(folder), fits=", ".join(KINDS))
    try:
        model, processor = _read(folder)
    except Exception as problem:  # whatever transformers raises about a folder
        what = f"transformers cannot read it: {type(problem).__name__}: {str(problem)[:300]}"
        raise SourceError("unreadable", what, where=str(folder), fits=_ADVICE) from problem
    metric = config.get("depth_estimation_type") == "metric"
    return _Network(model, processor, METRES if metric else KINDS[kind])


def _read(folder: Path) -> tuple[Any, Any]:
    import transformers

    # the same resampling with and without torchvision
    backend = {"use_fast": False} if transformers.__version__.startswith("4.") else {"backend": "pil"}
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, **backend)
    model, report = transformers.AutoModelForDepthEstimation.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    absent = sorted(map(str, report["missing_keys"])) + sorted(map(str, report.get("mismatched_keys", ())))
    if absent:
        raise ValueError(f"the weights lack {len(absent)} tensors: {', '.join(absent[:3])}")
    return model.float().eval().requires_grad_(False), processor
