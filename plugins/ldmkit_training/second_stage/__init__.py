"""The second stage: training denoisers, and the conditioners and adapters beside them."""

from ldmkit_training.second_stage.model import ModelSection
from ldmkit_training.second_stage.section import DenoiserObjective
from ldmkit_training.second_stage.stage import DenoiserStage

__all__ = ["DenoiserObjective", "DenoiserStage", "ModelSection"]
