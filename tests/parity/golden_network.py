"""The golden U-Nets as `denoise` functions: original weights and conditions behind our process and guidance."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ldmkit_checkpoints.compvis.unet_config import compvis_options, unet_from_compvis
from ldmkit_checkpoints.compvis.unet_keys import unet_compvis
from ldmkit_denoisers.unet import UNet
from ldmkit_processes.discrete import Discrete
from torch import Tensor

from ldmkit import Conditioning, Encoded, Guidance, Plane, Process, Run, Tokens, Vector
from ldmkit.run.denoise import Evaluator, Guided

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import golden_weights as gw  # noqa: E402


class Golden:
    """One folder of golden data: its arrays, its reduced network, its process."""

    def __init__(self, name: str):
        self.name = name
        self.manifest, self.arrays = gw.load_model_dir(str(GOLDENS / name))
        config = yaml.safe_load((GOLDENS / name / "config.yaml").read_text())["model"]["params"]
        self.sgm = "network_config" in config
        params = config["network_config" if self.sgm else "unet_config"]["params"]
        latent = self.tensor("sample.xT").shape[1]
        unet = UNet(unet_from_compvis(params, latent_channels=latent))
        state = gw.build_state_dict(self.manifest, self.arrays)
        prefix = "model.diffusion_model."
        keymap = unet_compvis(unet.config, **compvis_options(params))
        weights = {name: entry.read(*(state[prefix + k] for k in entry.keys)) for name, entry in keymap.items()}
        unet.load_state_dict(weights, strict=True)
        self.unet = unet.eval()
        if self.sgm:
            self.process = Discrete(time_rule="nearest")
        else:
            self.process = Discrete(beta_start=config["linear_start"], beta_end=config["linear_end"])

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    def conditioning(self, rows: int) -> Conditioning:
        parts: list[Encoded] = []
        if self.sgm:
            pairs = [
                ("context", Tokens, "cond.crossattn", "cond.uc_crossattn"),
                ("vector", Vector, "cond.vector", "cond.uc_vector"),
            ]
        elif "context" in self.unet.slots:
            pairs = [("context", Tokens, "cond.c", "cond.uc")]
        elif "plane" in self.unet.slots:
            pairs = [("plane", Plane, "cond.c", "cond.uc")]
        else:
            pairs = []
        for slot, kind, name, null in pairs:
            value = self.tensor(name)[:rows]
            empty = self.tensor(null)[:rows] if null in self.arrays else torch.zeros_like(value)
            parts.append(Encoded(slot, slot, kind(value), kind(empty)))
        return Conditioning(tuple(parts), self.unet.slots)

    def denoise(self, guidance: Guidance, sigmas: list[float], rows: int, process: Process | None = None) -> Guided:
        run = Run(tuple(sigmas), (16, 24))
        return Guided(Evaluator(self.unet, process or self.process, self.conditioning(rows), run), guidance)

    def close(self, name: str, got: Any, tolerance: float = 1e-4) -> None:
        """Largest difference over the array's largest value; the golden data's own rounding is below 1e-5."""
        ok, error = gw.compare(self.manifest, self.arrays, name, got, tolerance)
        assert ok, f"{self.name}/{name}: {error:.2e}"


@cache
def golden(name: str) -> Golden:
    return Golden(name)
