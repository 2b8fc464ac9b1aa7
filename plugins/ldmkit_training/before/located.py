"""Resolves the models, runs and asset folders that a recipe names."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from ldmkit import SourceError
from ldmkit.models.locate import bundled_models

RUN_RECIPE, RUN_MODEL = "recipe.yaml", "model"
"""The file that marks a run folder, and the model in that folder."""


def locate_model(text: str, folder: Path, key: str) -> str:
    """The source to pass to `ldmkit.load` or `load_codec`: a path relative to `folder` or to the working directory, or
    a name. For a run folder it is the model inside.

    Args:
        key: of the recipe that names it, for errors.

    Raises:
        SourceError: `not-found`; `no-model-yet`: the run has not finished.
    """
    own = sorted(bundled_models())
    instead = f"; or a bundled model: --set {key}={own[0]}" if own else ""
    for path in (folder / text, Path(text)):
        if path.is_dir() and (path / RUN_RECIPE).is_file():
            if not (path / RUN_MODEL).is_dir():
                what = f"the run in {path} has saved no model"
                fits = f"its end (ldmkit train {path / RUN_RECIPE})"
                raise SourceError("no-model-yet", what, where=key, fits=fits + instead)
            return str(path / RUN_MODEL)
        if path.exists():
            return str(path)
    if text in own or text.startswith(("hf:", "~")):
        return text
    what = f"there is no file, folder, run or bundled model {text!r}"
    raise SourceError("not-found", what, where=key, fits=f"a run that has come to its end, a saved model{instead}")


def assets_folder(text: str, folder: Path, where: str) -> Path:
    """A folder of assets: a path relative to the recipe's folder or to the working directory, or `package:folder`.

    Raises:
        SourceError: `not-found`.
    """
    package, _, inner = text.partition(":")
    places = [folder / text, Path(text)]
    if inner and find_spec(package) is not None:
        places.append(Path(str(files(package))) / inner)
    for path in places:
        if path.is_dir():
            return path
    fits = f"a folder, relative to {folder} or to the working directory, or package:folder"
    raise SourceError("not-found", f"there is no folder {text!r}", where=where, fits=fits)
