"""ldmkit: latent diffusion from parts. Importing this package imports neither torch nor any plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ldmkit.version import VERSION as __version__

_HOMES: dict[str, str] = {}
for _home, _names in {
    "ldmkit.plugins.catalogue": ("components", "get", "name_of", "registered_name"),
    "ldmkit.plugins.local": ("use_parts",),
    "ldmkit.loading": ("load", "load_adapter", "load_classifier", "load_codec"),
    "ldmkit.pipeline": ("Pipeline",),
    "ldmkit.cascade": ("Cascade",),
    "ldmkit.run.cascading": ("CascadeOutput", "stage_seed"),
    "ldmkit.models.cascade": ("CascadeSpec", "StageSpec"),
    "ldmkit.run.many": ("Drawn",),
    "ldmkit.run.output": ("Output",),
    "ldmkit.run.starts": ("Start",),
    "ldmkit.models.placement": ("PartPlacement", "Placement"),
    "ldmkit.models.cascade_source": ("CascadeSource",),
    "ldmkit.models.reading": ("open_source",),
    "ldmkit.models.source": ("Learnt", "SlotPart", "Source"),
    "ldmkit.models.spec": ("ConditionerSpec", "Defaults", "PartSpec", "PipelineSpec"),
    "ldmkit.contracts.signals": (
        "Join",
        "Plane",
        "Residuals",
        "Signal",
        "SignalKind",
        "Slot",
        "Tokens",
        "Vector",
        "cat_rows",
        "rows_of",
    ),
    "ldmkit.run.conditioning": ("Conditioning", "Encoded"),
    "ldmkit.contracts.adapter": ("Adapter", "Fusable"),
    "ldmkit.contracts.axes": ("Axis", "check_pictures"),
    "ldmkit.contracts.codec": ("Codec", "Reconstruction"),
    "ldmkit.contracts.cache": ("Cache",),
    "ldmkit.contracts.conditioner": ("Conditioner",),
    "ldmkit.contracts.conditioner_abilities": (
        *("HasDefault", "KnowsRegion", "OnGrid", "Ported", "Proposing", "SetsSize", "SharesWeights", "UsesCodec"),
    ),
    "ldmkit.contracts.denoiser": ("Denoiser",),
    "ldmkit.contracts.denoised": ("Denoised", "DenoiseWrapper", "Need", "estimates", "with_unconditional"),
    "ldmkit.contracts.captioner": ("Captioner", "Captions"),
    "ldmkit.contracts.rewriter": ("Rewriter",),
    "ldmkit.contracts.extractor": ("Extractor",),
    "ldmkit.contracts.grid": ("Grid",),
    "ldmkit.contracts.process": ("Process", "column"),
    "ldmkit.contracts.sampler": ("Sampler",),
    "ldmkit.contracts.guidance": ("Evaluate", "Guidance", "Perturbed", "View"),
    "ldmkit.contracts.judges": ("Classifier", "Perceptual"),
    "ldmkit.contracts.nn": (
        "PortedConv2d",
        "PortedLinear",
        "attention",
        "layer_ports",
        "linear_ports",
        "ports_in",
        "without_autocast",
    ),
    "ldmkit.contracts.part": ("Part",),
    "ldmkit.contracts.step": ("Arrivals", "Context", "Denoise", "Evaluations", "Frame", "Run", "Step"),
    "ldmkit.contracts.data": ("Data", "Dataset", "Geometry", "Sample"),
    "ldmkit.contracts.draws": ("Draws",),
    "ldmkit.contracts.seeded": ("Seeded",),
    "ldmkit.contracts.learns_tokens": ("LearnsTokens",),
    "ldmkit.contracts.stage": ("Batch", "Loss", "Stage", "StageSetup", "Turn"),
    "ldmkit.contracts.example": ("Example",),
    "ldmkit.run.noise": ("Noise", "seeded"),
    "ldmkit.contracts.ports": ("Gate", "GateTap", "Port", "Tap", "attached"),
    "ldmkit.contracts.value": ("Value", "integer", "validated"),
    "ldmkit.models.weights": ("LazyTensor",),
    "ldmkit.run.loss": ("diffusion_loss",),
    "ldmkit.plugins.hooks": ("hookimpl",),
    "ldmkit.plugins.deprecation": ("LdmkitDeprecationWarning",),
    "ldmkit.contracts.work": ("Direction", "Work"),
    "ldmkit.contracts.arguments": ("check_png", "list_of", "path_of"),
    "ldmkit.files.pictures": ("LabelMap", "Mask", "Picture", "read_label_map", "read_picture", "to_pil"),
    "ldmkit.files.value_maps": ("ValueMap",),
    "ldmkit.files.json": ("read_json", "write_json", "write_new"),
    "ldmkit.files.reading": ("read_file",),
    "ldmkit.models.annotator": ("Annotator",),
    "ldmkit.models.compose": ("build_value", "part_spec"),
    "ldmkit.plans.base": ("check_fresh", "fingerprint"),
    "ldmkit.run.recipe": ("read_recipe",),
    "ldmkit.replaying": ("replay",),
    "ldmkit.files.hints": ("MASKED", "HintPicture"),
    "ldmkit.files.levels": ("from_levels", "to_levels"),
    "ldmkit.run.extracting": ("Extracted",),
    "ldmkit.files.picture_files": ("array_from_uri", "array_uri"),
    "ldmkit.errors": (
        *("CompositionError", "InputError", "LdmkitError", "PluginError", "RunError", "SourceError"),
        *("DrawingWarning", "SpecError", "WeightsError", "shown", "suggest"),
    ),
}.items():
    for _name in _names:
        _HOMES[_name] = _home

__all__ = sorted([*_HOMES, "__version__"])

if TYPE_CHECKING:
    from ldmkit.cascade import Cascade as Cascade
    from ldmkit.contracts.adapter import Adapter as Adapter
    from ldmkit.contracts.adapter import Fusable as Fusable
    from ldmkit.contracts.arguments import check_png as check_png
    from ldmkit.contracts.arguments import list_of as list_of
    from ldmkit.contracts.arguments import path_of as path_of
    from ldmkit.contracts.axes import Axis as Axis
    from ldmkit.contracts.axes import check_pictures as check_pictures
    from ldmkit.contracts.cache import Cache as Cache
    from ldmkit.contracts.captioner import Captioner as Captioner
    from ldmkit.contracts.captioner import Captions as Captions
    from ldmkit.contracts.codec import Codec as Codec
    from ldmkit.contracts.codec import Reconstruction as Reconstruction
    from ldmkit.contracts.conditioner import Conditioner as Conditioner
    from ldmkit.contracts.conditioner_abilities import HasDefault as HasDefault
    from ldmkit.contracts.conditioner_abilities import KnowsRegion as KnowsRegion
    from ldmkit.contracts.conditioner_abilities import OnGrid as OnGrid
    from ldmkit.contracts.conditioner_abilities import Ported as Ported
    from ldmkit.contracts.conditioner_abilities import Proposing as Proposing
    from ldmkit.contracts.conditioner_abilities import SetsSize as SetsSize
    from ldmkit.contracts.conditioner_abilities import SharesWeights as SharesWeights
    from ldmkit.contracts.conditioner_abilities import UsesCodec as UsesCodec
    from ldmkit.contracts.data import Data as Data
    from ldmkit.contracts.data import Dataset as Dataset
    from ldmkit.contracts.data import Geometry as Geometry
    from ldmkit.contracts.data import Sample as Sample
    from ldmkit.contracts.denoised import Denoised as Denoised
    from ldmkit.contracts.denoised import DenoiseWrapper as DenoiseWrapper
    from ldmkit.contracts.denoised import Need as Need
    from ldmkit.contracts.denoised import estimates as estimates
    from ldmkit.contracts.denoised import with_unconditional as with_unconditional
    from ldmkit.contracts.denoiser import Denoiser as Denoiser
    from ldmkit.contracts.draws import Draws as Draws
    from ldmkit.contracts.example import Example as Example
    from ldmkit.contracts.extractor import Extractor as Extractor
    from ldmkit.contracts.grid import Grid as Grid
    from ldmkit.contracts.guidance import Evaluate as Evaluate
    from ldmkit.contracts.guidance import Guidance as Guidance
    from ldmkit.contracts.guidance import Perturbed as Perturbed
    from ldmkit.contracts.guidance import View as View
    from ldmkit.contracts.judges import Classifier as Classifier
    from ldmkit.contracts.judges import Perceptual as Perceptual
    from ldmkit.contracts.learns_tokens import LearnsTokens as LearnsTokens
    from ldmkit.contracts.nn import PortedConv2d as PortedConv2d
    from ldmkit.contracts.nn import PortedLinear as PortedLinear
    from ldmkit.contracts.nn import attention as attention
    from ldmkit.contracts.nn import layer_ports as layer_ports
    from ldmkit.contracts.nn import linear_ports as linear_ports
    from ldmkit.contracts.nn import ports_in as ports_in
    from ldmkit.contracts.nn import without_autocast as without_autocast
    from ldmkit.contracts.part import Part as Part
    from ldmkit.contracts.ports import Gate as Gate
    from ldmkit.contracts.ports import GateTap as GateTap
    from ldmkit.contracts.ports import Port as Port
    from ldmkit.contracts.ports import Tap as Tap
    from ldmkit.contracts.ports import attached as attached
    from ldmkit.contracts.process import Process as Process
    from ldmkit.contracts.process import column as column
    from ldmkit.contracts.rewriter import Rewriter as Rewriter
    from ldmkit.contracts.sampler import Sampler as Sampler
    from ldmkit.contracts.seeded import Seeded as Seeded
    from ldmkit.contracts.signals import Join as Join
    from ldmkit.contracts.signals import Plane as Plane
    from ldmkit.contracts.signals import Residuals as Residuals
    from ldmkit.contracts.signals import Signal as Signal
    from ldmkit.contracts.signals import SignalKind as SignalKind
    from ldmkit.contracts.signals import Slot as Slot
    from ldmkit.contracts.signals import Tokens as Tokens
    from ldmkit.contracts.signals import Vector as Vector
    from ldmkit.contracts.signals import cat_rows as cat_rows
    from ldmkit.contracts.signals import rows_of as rows_of
    from ldmkit.contracts.stage import Batch as Batch
    from ldmkit.contracts.stage import Loss as Loss
    from ldmkit.contracts.stage import Stage as Stage
    from ldmkit.contracts.stage import StageSetup as StageSetup
    from ldmkit.contracts.stage import Turn as Turn
    from ldmkit.contracts.step import Arrivals as Arrivals
    from ldmkit.contracts.step import Context as Context
    from ldmkit.contracts.step import Denoise as Denoise
    from ldmkit.contracts.step import Evaluations as Evaluations
    from ldmkit.contracts.step import Frame as Frame
    from ldmkit.contracts.step import Run as Run
    from ldmkit.contracts.step import Step as Step
    from ldmkit.contracts.value import Value as Value
    from ldmkit.contracts.value import integer as integer
    from ldmkit.contracts.value import validated as validated
    from ldmkit.contracts.work import Direction as Direction
    from ldmkit.contracts.work import Work as Work
    from ldmkit.errors import CompositionError as CompositionError
    from ldmkit.errors import DrawingWarning as DrawingWarning
    from ldmkit.errors import InputError as InputError
    from ldmkit.errors import LdmkitError as LdmkitError
    from ldmkit.errors import PluginError as PluginError
    from ldmkit.errors import RunError as RunError
    from ldmkit.errors import SourceError as SourceError
    from ldmkit.errors import SpecError as SpecError
    from ldmkit.errors import WeightsError as WeightsError
    from ldmkit.errors import shown as shown
    from ldmkit.errors import suggest as suggest
    from ldmkit.files.hints import MASKED as MASKED
    from ldmkit.files.hints import HintPicture as HintPicture
    from ldmkit.files.json import read_json as read_json
    from ldmkit.files.json import write_json as write_json
    from ldmkit.files.json import write_new as write_new
    from ldmkit.files.levels import from_levels as from_levels
    from ldmkit.files.levels import to_levels as to_levels
    from ldmkit.files.picture_files import array_from_uri as array_from_uri
    from ldmkit.files.picture_files import array_uri as array_uri
    from ldmkit.files.pictures import LabelMap as LabelMap
    from ldmkit.files.pictures import Mask as Mask
    from ldmkit.files.pictures import Picture as Picture
    from ldmkit.files.pictures import read_label_map as read_label_map
    from ldmkit.files.pictures import read_picture as read_picture
    from ldmkit.files.pictures import to_pil as to_pil
    from ldmkit.files.reading import read_file as read_file
    from ldmkit.files.value_maps import ValueMap as ValueMap
    from ldmkit.loading import load as load
    from ldmkit.loading import load_adapter as load_adapter
    from ldmkit.loading import load_classifier as load_classifier
    from ldmkit.loading import load_codec as load_codec
    from ldmkit.models.annotator import Annotator as Annotator
    from ldmkit.models.cascade import CascadeSpec as CascadeSpec
    from ldmkit.models.cascade import StageSpec as StageSpec
    from ldmkit.models.cascade_source import CascadeSource as CascadeSource
    from ldmkit.models.compose import build_value as build_value
    from ldmkit.models.compose import part_spec as part_spec
    from ldmkit.models.placement import PartPlacement as PartPlacement
    from ldmkit.models.placement import Placement as Placement
    from ldmkit.models.reading import open_source as open_source
    from ldmkit.models.source import Learnt as Learnt
    from ldmkit.models.source import SlotPart as SlotPart
    from ldmkit.models.source import Source as Source
    from ldmkit.models.spec import ConditionerSpec as ConditionerSpec
    from ldmkit.models.spec import Defaults as Defaults
    from ldmkit.models.spec import PartSpec as PartSpec
    from ldmkit.models.spec import PipelineSpec as PipelineSpec
    from ldmkit.models.weights import LazyTensor as LazyTensor
    from ldmkit.pipeline import Pipeline as Pipeline
    from ldmkit.plans.base import check_fresh as check_fresh
    from ldmkit.plans.base import fingerprint as fingerprint
    from ldmkit.plugins.catalogue import components as components
    from ldmkit.plugins.catalogue import get as get
    from ldmkit.plugins.catalogue import name_of as name_of
    from ldmkit.plugins.catalogue import registered_name as registered_name
    from ldmkit.plugins.deprecation import LdmkitDeprecationWarning as LdmkitDeprecationWarning
    from ldmkit.plugins.hooks import hookimpl as hookimpl
    from ldmkit.plugins.local import use_parts as use_parts
    from ldmkit.replaying import replay as replay
    from ldmkit.run.cascading import CascadeOutput as CascadeOutput
    from ldmkit.run.cascading import stage_seed as stage_seed
    from ldmkit.run.conditioning import Conditioning as Conditioning
    from ldmkit.run.conditioning import Encoded as Encoded
    from ldmkit.run.extracting import Extracted as Extracted
    from ldmkit.run.loss import diffusion_loss as diffusion_loss
    from ldmkit.run.many import Drawn as Drawn
    from ldmkit.run.noise import Noise as Noise
    from ldmkit.run.noise import seeded as seeded
    from ldmkit.run.output import Output as Output
    from ldmkit.run.recipe import read_recipe as read_recipe
    from ldmkit.run.starts import Start as Start
else:
    # type checkers see the imports above: to them a misspelt name is an error, not Any
    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'ldmkit' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
