"""The second stage: training denoisers, and the conditioners and adapters beside them."""

from ldmkit_training.stages.denoiser.model import ModelSection
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoiser.stage import DenoiserStage

__all__ = ["DenoiserObjective", "DenoiserStage", "ModelSection"]
