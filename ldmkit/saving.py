"""Writing a pipeline as a folder, so that a broken attempt leaves nothing half-written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ldmkit.errors import InputError
from ldmkit.jsonio import write_json
from ldmkit.source import SPEC_FILE, assets_folder, is_native, weights_file
from ldmkit.weights import write_safetensors

if TYPE_CHECKING:
    from ldmkit.pipeline import Pipeline


def save_pipeline(pipeline: Pipeline, folder: Path) -> Path:
    """Write spec, tensors and vocabularies; an older saved pipeline in the folder's place is replaced at the end.

    Raises:
        InputError: the folder exists and holds something else, or its parent does not exist.
    """
    if folder.exists() and not (is_native(folder) or (folder.is_dir() and not any(folder.iterdir()))):
        raise InputError(
            "folder-taken", "it exists and is no saved pipeline", where=str(folder), fits="a new or empty folder"
        )
    if not folder.absolute().parent.is_dir():
        raise InputError("no-folder", "the folder to write to does not exist", where=str(folder.absolute().parent))
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    try:
        building.chmod(0o755)
        _write(pipeline, building)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _write(pipeline: Pipeline, folder: Path) -> None:
    for path, part in pipeline.parts.items().items():
        name = path.removeprefix("conditioners.")
        shared = path.startswith("conditioners.") and pipeline.wiring[name].shares is not None
        state = {} if shared else part.state_dict()
        if state:
            target = folder / weights_file(path)
            target.parent.mkdir(exist_ok=True)
            write_safetensors(target, state)
        assets = folder / assets_folder(path)
        assets.mkdir(parents=True, exist_ok=True)
        part.save_assets(assets)
        for empty in (assets, assets.parent):
            if empty != folder and not any(empty.iterdir()):
                empty.rmdir()
    write_json(folder / SPEC_FILE, pipeline.spec.to_json())
