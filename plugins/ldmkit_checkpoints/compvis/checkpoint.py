"""Checkpoints in the original layout: one `.ckpt` or `.safetensors` file and its yaml."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ldmkit import ConditionerSpec, Defaults, LazyTensor, PartSpec, PipelineSpec, Source, SourceError, suggest
from ldmkit.models.weights import open_safetensors, read_metadata
from ldmkit_checkpoints.compvis import ldm, sgm
from ldmkit_checkpoints.compvis.controlnet_file import ControlNetFile, is_controlnet
from ldmkit_checkpoints.compvis.guided import flags_of_published, plan_guided
from ldmkit_checkpoints.compvis.guided_classifier import open_classifier
from ldmkit_checkpoints.compvis.guided_flags import SECTION
from ldmkit_checkpoints.compvis.guided_structure import is_classifier, is_guided
from ldmkit_checkpoints.compvis.plan import CheckpointPlan, plan_first_stage, shadow
from ldmkit_checkpoints.compvis.process import check_buffers
from ldmkit_checkpoints.compvis.vae_config import TARGETS as FIRST_STAGES
from ldmkit_checkpoints.compvis.yaml_config import read_yaml, section
from ldmkit_checkpoints.config_fields import known_only
from ldmkit_checkpoints.diffusers.control.files import open_adapter_file
from ldmkit_checkpoints.inventory import Inventory
from ldmkit_checkpoints.singlefile.evidence import Evidence, family_of, gather
from ldmkit_checkpoints.singlefile.models import infer_config
from ldmkit_checkpoints.torchfile.state_dict import SUFFIXES, open_state_dict

_NOTHING: Mapping[str, str] = {}

LOOKED_AT = 16
"""Pairs of raw and averaged tensors that are compared."""


class CompVisSource(Source):
    """A checkpoint of latent-diffusion, Stable Diffusion 1 or 2, ControlNet or SDXL in the original layout.

    Args:
        tensors: lazy tensors by the file's keys.
        config: the parsed yaml.
        origin: the file; `config_origin`: the yaml; both for errors.
        ema: EMA (True) or raw (False) weights if the file has both; None: what the yaml's `use_ema` says, or EMA with a
            warning if nothing says which.
        metadata: metadata of a safetensors file.
        prefix: prefix removed from all keys, for the report.

    Raises:
        SourceError: unknown entries in the config; metadata or marker keys that disagree with it or each other;
            `no-ema` if EMA weights are requested and missing.
    """

    def __init__(
        self,
        tensors: Mapping[str, LazyTensor],
        config: Mapping[str, Any],
        origin: str,
        *,
        config_origin: str = "config",
        ema: bool | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        prefix: str = "",
    ) -> None:
        super().__init__(origin)
        self.inventory = Inventory(tensors, self.report, origin, prefix)
        self.plan = _plan(config, self.inventory, config_origin, metadata)
        self.averaged = self._choose(ema)
        self.report.notes += self.plan.notes
        self._taken: dict[str, dict[str, LazyTensor]] = {}

    @property
    def spec(self) -> PipelineSpec:
        plan = self.plan
        if plan.denoiser is None or plan.process is None:
            what = "the file holds a first stage alone"
            raise SourceError("codec-only", what, where=self.origin, fits="ldmkit.load_codec")
        return PipelineSpec(
            codec=plan.codec.spec,
            denoiser=plan.denoiser.spec,
            process=plan.process,
            conditioners={name: part.spec for name, part in plan.conditioners.items()},
            adapters={name: part.spec for name, part in plan.adapters.items()},
            defaults=Defaults(**plan.defaults),
        )

    @property
    def codec_spec(self) -> PartSpec:
        return self.plan.codec.spec

    @property
    def assumption(self) -> str | None:
        return self.plan.assumption

    def tensors(self, part: str) -> Mapping[str, LazyTensor]:
        """The part's tensors. For any part but the codec, every key of the file must be accounted for.

        Raises:
            WeightsError: missing, unexpected.
            SourceError: `schedule-mismatch`.
        """
        if part not in self.plan.parts:
            raise SourceError("no-part", f"there is no part {part!r}", fits=suggest(part, self.plan.parts))
        if part != "codec" or self.plan.process is None:
            self._account()
        return self._take(part)

    def assets(self, part: str) -> Path | None:
        """The `tokenizer` folder next to the file, for text conditioners."""
        folder, plan = Path(self.origin).parent / "tokenizer", self.plan.parts.get(part)
        reads = plan is not None and isinstance(plan.spec, ConditionerSpec)
        return folder if reads and folder.is_dir() else None

    def _account(self) -> None:
        for part in self.plan.parts:
            self._take(part)
        check_buffers(self.inventory.tensors, self.plan.buffers, self.origin, self.plan.unscaled)
        self.inventory.ignore_if(self.plan.ignore)
        self.inventory.finish()

    def _take(self, part: str) -> dict[str, LazyTensor]:
        if part not in self._taken:
            plan = self.plan.parts[part]
            rename = shadow if plan.averaged and self.averaged else str
            self._taken[part] = self.inventory.take(part, plan.keymap, rename)
        return self._taken[part]

    def _choose(self, ema: bool | None) -> bool:
        shadows = {shadow(key) for plan in self.plan.parts.values() if plan.averaged for key in plan.published()}
        present = any(key in self.inventory.tensors for key in shadows)
        if ema and not present:
            fits = "ema=False, or ema=None (what the file has)"
            raise SourceError("no-ema", "the file holds no EMA weights", where=self.origin, fits=fits)
        if not present:
            return False
        said = self.plan.ema if ema is None else ema
        chosen = "raw" if said is False else "EMA"
        self.report.notes.append(f"{chosen} weights are used, of the two sets in the file" + self._whose_word(ema))
        if said is None and self._differ():
            what = "it holds raw and EMA weights that differ, and nothing says which: the EMA weights are used"
            self._warn(f"{what} (ema=True or False, --ema or --raw)")
        if said is not False and self._never_averaged() and self._differ():
            what = "`model_ema.num_updates` is 0: its EMA weights are those that training began with"
            self._warn(f"{what} (ema=False, --raw: the trained ones)")
        return said is not False

    def _whose_word(self, ema: bool | None) -> str:
        return ", as the yaml says (use_ema)" if ema is None and self.plan.ema is not None else ""

    def _differ(self) -> bool:
        """Whether the two sets do; the smallest tensors are looked at, all of which training changes."""
        tensors = self.inventory.tensors
        keys = [key for plan in self.plan.parts.values() if plan.averaged for key in plan.published()]
        pairs = [(key, shadow(key)) for key in keys if key in tensors and shadow(key) in tensors]
        pairs.sort(key=lambda pair: (math.prod(tensors[pair[0]].shape), pair))
        looked = [(tensors[raw].read(True), tensors[averaged].read(True)) for raw, averaged in pairs[:LOOKED_AT]]
        return any(not torch.equal(raw.float(), averaged.float()) for raw, averaged in looked)

    def _never_averaged(self) -> bool:
        count = self.inventory.tensors.get("model_ema.num_updates")
        return count is not None and math.prod(count.shape) == 1 and not bool(count.read(True).any())

    def _warn(self, what: str) -> None:
        self.report.notes.append(what)
        warnings.warn(f"{self.origin}: {what}", stacklevel=2)


def open_checkpoint(path: Path) -> tuple[dict[str, LazyTensor], dict[str, Any]]:
    """Tensors of a checkpoint file by key, and the other top-level entries of a training checkpoint."""
    return (open_safetensors(path), {}) if path.suffix == ".safetensors" else open_state_dict(path)


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a file with a checkpoint's suffix."""
    return path.is_file() and path.suffix in (".safetensors", *SUFFIXES)


def config_beside(path: Path) -> Path | None:
    """The yaml of a checkpoint file: with the same name, or `config.yaml` in its folder."""
    for candidate in (path.with_suffix(".yaml"), path.with_name("config.yaml")):
        if candidate.is_file():
            return candidate
    return None


def checkpoint_in(folder: Path) -> Path | None:
    """The only checkpoint file of a folder, if it has a yaml, as in the original model zoo."""
    files = [path for path in folder.iterdir() if is_checkpoint(path)]
    return files[0] if len(files) == 1 and config_beside(files[0]) is not None else None


def _plan(config: Mapping[str, Any], inventory: Inventory, origin: str, metadata: Mapping[str, str]) -> CheckpointPlan:
    if SECTION in config:
        known_only(config, (SECTION,), origin)
        return plan_guided(config[SECTION], inventory, f"{origin}: {SECTION}")
    model = section(config, "model", origin)
    target, where = model["target"], f"{origin}: model.params"
    if target in FIRST_STAGES:
        return plan_first_stage(model, f"{origin}: model")
    evidence = gather(metadata, inventory.tensors, inventory.where)
    evidence.check_family(family_of(inventory.tensors), "its U-Net's shape")
    if target in ldm.TARGETS:
        return _sized(ldm.plan_ldm(model, inventory, where, evidence), evidence)
    if target in sgm.TARGETS:
        return _sized(sgm.plan_sgm(model, inventory, where, evidence), evidence)
    known = {*FIRST_STAGES, *ldm.TARGETS, *sgm.TARGETS}
    what = f"unknown model {target!r}"
    raise SourceError("unknown-target", what, where=f"{origin}: model.target", fits=suggest(target, known))


def _sized(plan: CheckpointPlan, evidence: Evidence) -> CheckpointPlan:
    """The plan with the training size stated by the file as default size."""
    plan.notes += evidence.notes
    for note in evidence.notes:
        warnings.warn(f"{evidence.where}: {note}", stacklevel=2)
    if evidence.size is not None and evidence.size != plan.defaults.get("size"):
        height, width = evidence.size
        plan.notes.append(f"{height}x{width} pixels by default, from the file's metadata")
        plan.defaults["size"] = evidence.size
    return plan


def open_compvis(path: Path, config: Path | None, ema: bool | None) -> Source:
    """A checkpoint file with the given yaml, the one next to it, or a config inferred from its keys and shapes.

    It can hold a pipeline, a first stage alone or an adapter alone.

    Raises:
        SourceError: an unreadable file; no yaml, and a model that cannot be recognised by its keys.
    """
    tensors, extras = open_checkpoint(path)
    chosen = config or config_beside(path)
    tensors, prefix, said = without_wrapping(tensors, first_stage=chosen is None)
    if (adapter := open_adapter_file(tensors, path)) is not None:
        return adapter
    if is_controlnet(tensors):
        control = None if chosen is None else read_yaml(chosen)
        return ControlNetFile(tensors, control, str(path), str(chosen))
    if is_classifier(tensors):
        return open_classifier(tensors, path, chosen)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    if chosen is not None:
        whole = read_yaml(chosen)
        source = CompVisSource(
            tensors, whole, str(path), config_origin=str(chosen), ema=ema, metadata=metadata, prefix=prefix
        )
        source.report.notes += said
        return source
    if is_guided(tensors):
        guessed, notes = flags_of_published(path, tensors), [f"flags of the published {path.stem}, by the file's name"]
    else:
        guessed, notes = infer_config(tensors, extras, str(path), metadata)
    origin = f"{path}: config from its keys"
    source = CompVisSource(tensors, guessed, str(path), config_origin=origin, ema=ema, metadata=metadata, prefix=prefix)
    source.report.notes += [*notes, *said]
    return source


_CORES = ("model.diffusion_model.input_blocks.0.0.weight", "encoder.conv_in.weight", "input_hint_block.0.weight",
          "controlnet_cond_embedding.conv_in.weight")  # fmt: skip
_COMPILED = "_orig_mod."


def without_wrapping(
    tensors: dict[str, LazyTensor], first_stage: bool = True
) -> tuple[dict[str, LazyTensor], str, list[str]]:
    """Tensors without the prefix that wrappers add to all keys (`module.`, `state_dict.`), that prefix, and notes.

    torch.compile's `_orig_mod.` is removed anywhere in a key.

    Args:
        first_stage: read a file with only `first_stage_model.` keys as a first stage alone.
    """
    said: list[str] = []
    plain = {key.replace(_COMPILED, ""): tensor for key, tensor in tensors.items()}
    if plain.keys() != tensors.keys() and len(plain) == len(tensors):
        said.append(f"{_COMPILED!r} (torch.compile) is removed from the keys")
        tensors = plain
    kept = ("control_model.", *(() if first_stage else ("first_stage_model.",)))
    for core in _CORES:
        for key in tensors:
            prefix = key.removesuffix(core)
            if key.endswith("." + core) and prefix not in kept and all(k.startswith(prefix) for k in tensors):
                said.append(f"prefix {prefix!r} is removed from every key")
                return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, prefix, said
    return tensors, "", said
