"""Trial of hooks: they are called as in a real run, on a tiny pipeline of in-tree parts."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from ldmkit.errors import LdmkitError
from ldmkit.pipeline import Pipeline
from ldmkit.plugins import catalogue
from ldmkit.plugins.catalogue import load_entry, verdict
from ldmkit.plugins.doctor.faults import Found
from ldmkit.plugins.hooks import manager, raised
from ldmkit.plugins.installed import Entry


def rehearse(entry: Entry) -> tuple[int, list[Found]]:
    """Call every hook of a plugin, with all other third-party plugins disabled; the successes and the faults."""
    before = {name: os.environ.get(name) for name in ("LDMKIT_PLUGINS_ALLOW", "LDMKIT_SAFE_MODE")}
    os.environ["LDMKIT_PLUGINS_ALLOW"] = entry.qualified
    catalogue.refresh()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [*_registers(entry), *_reads(entry), *_runs(entry)]
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    return 3 - len({code for code, *_ in found}), found


def _registers(entry: Entry) -> list[Found]:
    load_entry(entry)
    manager()
    judged = verdict(entry)
    return [] if judged.status == "ok" else [("bad-hook", judged.status, judged.reason, _WANTED)]


_WANTED = "plain @ldmkit.hookimpl functions with the names and arguments of ldmkit.plugins.hooks.Hooks"


def _reads(entry: Entry) -> list[Found]:
    """Offer a file of an unknown format, for which a reader must return None so as not to claim foreign files."""
    bus = manager()
    plugin: Any = bus.get_plugin(entry.qualified)
    hook = getattr(plugin, "ldmkit_identify_checkpoint", None)
    if hook is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.of-no-format"
        path.write_bytes(b"nothing in particular")
        others = [other for other in bus.get_plugins() if other is not plugin]
        try:
            identify = bus.subset_hook_caller("ldmkit_identify_checkpoint", others)
            claimed = identify(path=path, config=None, ema=None, variant=None)
        except LdmkitError as error:
            claimed = error
    if claimed is not None:
        cause = f"ldmkit_identify_checkpoint claims a file of an unknown format: {claimed}"
        return [("greedy-reader", "ok", cause, "return None for formats that it does not know")]
    return _faults(entry)


def _runs(entry: Entry) -> list[Found]:
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "codec": catalogue.get("codec", "identity")(),
        "denoiser": catalogue.get("denoiser", "unet")(_SMALL),
        "process": catalogue.get("process", "discrete")(),
    }
    for part in (parts["codec"], parts["denoiser"]):
        part.eval().requires_grad_(False)
    drawn = []
    for safe in ("1", "0"):
        os.environ["LDMKIT_SAFE_MODE"] = safe
        catalogue.refresh()
        pipeline = Pipeline.of(**parts, defaults={"size": (8, 8)})
        drawn.append(pipeline({}, steps=3, seeds=1).latents)
    found = _faults(entry)
    if not torch.equal(*drawn):
        cause = "the result of a run changes with its hooks"
        found.append(("changes-result", "ok", cause, "a hook must not modify the pipeline or its parts"))
    return found


_SMALL = {"channels": 3, "widths": (8,), "blocks": 1, "norm_groups": 4, "heads": 1}


def _faults(entry: Entry) -> list[Found]:
    if not raised(entry):
        return []
    return [("hook-raised", "failed", verdict(entry).reason, "its hooks must not raise; runs continue without them")]
