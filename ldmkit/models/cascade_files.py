"""A cascade as a folder: `cascade.json`, and a folder for each stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ldmkit.contracts.part import Part
from ldmkit.errors import LdmkitError, SourceError, SpecError, suggest
from ldmkit.files.json import inside, read_json
from ldmkit.models.cascade import CASCADE_FILE, CascadeSpec, StageSpec, at_stage
from ldmkit.models.cascade_source import CascadeSource
from ldmkit.models.composed import Composed
from ldmkit.models.digests import Checked, check_spec
from ldmkit.models.saving import (
    check_folder,
    check_savable,
    check_store,
    check_written,
    replacing_folder,
    write_pipeline,
    write_spec,
)
from ldmkit.models.source import NativeFolder, Source
from ldmkit.models.spec import SPEC_FILE, PipelineSpec, Verify


class CascadeFolder(CascadeSource):
    """A folder with `cascade.json`, which `Cascade.save` wrote or somebody did by hand.

    Args:
        opened: opens the folder of a stage that is not a saved pipeline, with `verify`.
    """

    def __init__(self, folder: Path, verify: Verify, opened: Callable[[Path, Verify], Source]) -> None:
        super().__init__(str(folder))
        self.folder, self._verify, self._opened = folder, verify, opened
        path = inside(folder, CASCADE_FILE)
        data = read_json(path)
        self._cascade = CascadeSpec.read(data, str(path))
        check_spec(data, str(path), verify)
        self._checked = Checked(folder, self._cascade.files, verify)

    @property
    def cascade(self) -> CascadeSpec:
        return self._cascade

    def stage(self, name: str) -> Source:
        """The source of one stage: of a saved pipeline, or of anything else that `ldmkit.load` reads.

        Raises:
            SourceError: `not-found`, `digest-differs`; `other-stage`: its spec is not that which the cascade was saved
                with.
        """
        source = self._source(name)
        wanted = self.cascade.stages[name].spec
        if wanted is not None and source.spec.hash != wanted:
            what = f"its pipeline has spec {source.spec.hash}, but the cascade was saved with {wanted}"
            raise SourceError("other-stage", what, where=f"{self.origin}/{name}", fits="the folder as saved")
        source.origin = f"{self.origin}/{name}"
        return source

    def _source(self, name: str) -> Source:
        if inside(self.folder, f"{name}/{SPEC_FILE}").is_file():
            self._checked.check(f"{name}/{SPEC_FILE}")
            return NativeFolder(self.folder / name, self._verify)
        folder = inside(self.folder, name)
        saved = f"{name}/{SPEC_FILE}" in (self.cascade.files or {})
        if saved or not folder.is_dir():
            missing = f"{name}/{SPEC_FILE}" if saved else f"folder {name!r}, a stage of {CASCADE_FILE}"
            raise SourceError("not-found", f"there is no {missing}", where=self.origin)
        return self._opened(folder, self._verify)


def is_cascade(path: Path) -> bool:
    """Whether a folder holds a saved cascade."""
    return (path / CASCADE_FILE).is_file()


def shared_parts(
    name: str, stage: StageSpec, spec: PipelineSpec, before: Mapping[str, tuple[PipelineSpec, Mapping[str, Part]]]
) -> dict[str, Part]:
    """The parts that a stage shares with earlier ones, by path.

    Args:
        before: stage -> its spec, and its parts by path.

    Raises:
        SpecError: `unknown-share`: one of the stages has no such part; `share-differs`: type or config differ.
    """
    ready: dict[str, Part] = {}
    for path, text in stage.shares.items():
        owner = text.partition(".")[0]
        its_spec, parts = before[owner]
        where = f"stages.{name}.shares.{path}"
        mine, other = spec.parts().get(path), its_spec.parts().get(path)
        if mine is None or other is None or path not in parts:
            of, known = (owner, parts) if path not in parts else (name, spec.parts())
            raise SpecError(
                "unknown-share", f"stage {of!r} has no part {path!r}", where=where, fits=suggest(path, known)
            )
        if (mine.type, mine.config) != (other.type, other.config):
            what = f"{path!r} of stage {name!r} differs in type or config from that of {owner!r}"
            raise SpecError("share-differs", what, where=where, fits="identical parts, or a separate part per stage")
        ready[path] = parts[path]
    return ready


def save_cascade(
    stages: Mapping[str, Composed], spec: CascadeSpec, folder: Path, store: torch.dtype | None = None
) -> Path:
    """Write all stages and the spec; an older saved cascade in the folder's place is replaced at the end.

    Raises:
        InputError, PluginError, RunError: as for `save_pipeline`.
    """
    check_folder(folder, CASCADE_FILE, _stages_there(folder))
    check_store(store)
    for name, stage in stages.items():
        with at_stage(name):
            check_savable(stage.parts)
    with replacing_folder(folder) as building:
        for name, stage in stages.items():
            with at_stage(name):
                inner, shared = building / name, frozenset(spec.stages[name].shares)
                inner.mkdir()
                write_pipeline(stage.parts, stage.spec, inner, store, without=shared)
                check_written(inner, folder, without=shared)
        files = [f"{name}/{SPEC_FILE}" for name in stages]
        write_spec(building / CASCADE_FILE, _with_hashes(spec, building).to_json(), files)
    return folder


def _with_hashes(spec: CascadeSpec, folder: Path) -> CascadeSpec:
    """The spec with the hash of each stage as written: its dtype may differ from the pipeline's."""
    written = {name: NativeFolder(folder / name, "off").spec.hash for name in spec.stages}
    stages = {name: stage.model_copy(update={"spec": written[name]}) for name, stage in spec.stages.items()}
    return spec.model_copy(update={"stages": stages})


def _stages_there(folder: Path) -> frozenset[str]:
    """Stage names of an older cascade in a folder, whose subfolders may be replaced."""
    try:
        data: Any = read_json(folder / CASCADE_FILE)
        return frozenset(CascadeSpec.read(data).stages)
    except LdmkitError:
        return frozenset()
