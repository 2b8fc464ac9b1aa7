"""Complete files of the published models at a size that tests can run: checkpoint and yaml, as published."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import original_layout as layout
import torch
import yaml
from original_models import Original, averaged, buffers, shapes
from safetensors.torch import save_file
from torch import Tensor


def reduced(model: Original) -> Original:
    """The same topology with narrow layers, short text encoders and a small codebook; text towers of width 64."""
    config = copy.deepcopy(model.config)
    params = config["model"]["params"]
    if model.is_stage:
        _reduce_stage(params)
        return Original(config, 0, extras={key: shape for key, shape in model.extras.items() if "net." not in key})
    _reduce_stage(params["first_stage_config"]["params"])
    for name in ("unet_config", "network_config", "control_stage_config"):
        if name in params:
            _reduce_unet(params[name]["params"], model.text)
    cond = params.get("cond_stage_config")
    if isinstance(cond, dict) and "params" in cond:
        cond["params"] |= {k: v for k, v in (("embed_dim", 64), ("n_embed", 64), ("n_layer", 2)) if k in cond["params"]}
    return Original(config, 0, model.text, model.ema, model.extras)


def _reduce_stage(params: dict[str, Any]) -> None:
    params["ddconfig"]["ch"] = 32
    if "n_embed" in params:
        params["n_embed"] = 64


def _reduce_unet(params: dict[str, Any], text: str) -> None:
    params["model_channels"] = 32
    if "num_head_channels" in params:
        params["num_head_channels"] = 32
    if "context_dim" in params:
        params["context_dim"] = 128 if text == "sdxl" else 64
    if "adm_in_channels" in params:
        params["adm_in_channels"] += 64 - 1280
        params["transformer_depth"] = [1, 2, 3] if text == "sdxl" else 1


def state_dict(model: Original) -> dict[str, Tensor]:
    """A complete file of a reduced model: random weights, averaged ones that differ, and everything else it carries."""
    listed = shapes(model, small=True)
    found = {**buffers(model), **layout.filled(listed)}
    found |= layout.filled(averaged(model, listed), seed=1)
    cond = "cond_stage_model."
    if model.params.get("cond_stage_config") == "__is_first_stage__":
        same = {key: found[key.replace(cond, "first_stage_model.")] for key in found if key.startswith(cond)}
        found |= same
    return found | layout.filled(model.extras, seed=2)


def write(model: Original, folder: Path, suffix: str = ".ckpt") -> tuple[Path, Path]:
    """(checkpoint, yaml) of a reduced model, as its authors publish them."""
    config, path = folder / "project.yaml", folder / f"model{suffix}"
    config.write_text(yaml.safe_dump(model.config, sort_keys=False))
    state = state_dict(model)
    if suffix == ".safetensors":
        save_file({key: value.clone() for key, value in state.items()}, str(path))
    else:
        extras = {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.4.2", "callbacks": {}}
        torch.save({"state_dict": state, **extras, "optimizer_states": [], "lr_schedulers": []}, path)
    return path, config
