"""Warnings about keys of a recipe that cannot take effect.

Every key of every recipe is either in `RULES` or in `ALWAYS`; a test walks them all. Only keys that the recipe sets are
judged, not defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ldmkit import Codec, LdmkitError, Stage
from ldmkit_training.before.case import Case, Reasons, set_keys
from ldmkit_training.before.rates import ema, optimiser, schedule, untrained
from ldmkit_training.stages.classifier.section import ClassifierConfig, ClassifierObjective
from ldmkit_training.stages.codec.section import CodecConfig
from ldmkit_training.stages.controlnet.section import ControlNetRecipe
from ldmkit_training.stages.denoiser.config import DenoiserConfig
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.ip_adapter.section import IPAdapterRecipe
from ldmkit_training.stages.started import StartedConfig
from ldmkit_training.watch.observe import undisturbed

Rule = Callable[[Case], Reasons]


def without_effect(case: Case) -> list[str]:
    """`key: reason` for every key of a recipe that cannot take effect, each once."""
    found: dict[str, str] = {}
    for rule in dict.fromkeys(RULES.values()):
        for key, reason in rule(case):
            found.setdefault(key, reason)
    return [f"{key}: {reason}" for key, reason in found.items()]


def _intervals(case: Case) -> Reasons:
    recipe = case.recipe
    sections: dict[str, Any] = {
        "checkpoints": recipe.checkpoints, "validation": recipe.validation, "previews": recipe.previews,
        "probe": case.probe, "tracking": recipe.tracking,
    }  # fmt: skip
    for name, section in sections.items():
        if section is not None and recipe.steps and section.every > recipe.steps and case.sets(section, "every"):
            yield f"{name}.every", f"{section.every} of {recipe.steps} steps: only after the last one"


def _held_out(case: Case) -> Reasons:
    recipe, section = case.recipe, case.recipe.validation
    if case.held is None:
        if section is not None and case.sets(recipe, "validation"):
            yield "validation", "nothing is held out (`data.validation` is null), so nothing is validated"
        return
    if section is None and recipe.previews is None and case.probe is None:
        yield "data.validation", "validation, previews and probe are null: nothing looks at it"
    if section is not None and section.count > len(case.held) and case.sets(section, "count"):
        yield "validation.count", f"{section.count}, and {len(case.held)} are held out"


def _previews_and_probe(case: Case) -> Reasons:
    recipe, probe = case.recipe, case.probe
    shown = case.train if case.held is None else case.held
    sections: dict[str, Any] = {"previews": recipe.previews, "probe": probe}
    for name, section in sections.items():
        if section is not None and section.count > len(shown) and case.sets(section, "count"):
            yield f"{name}.count", f"{section.count}, and there are {len(shown)}"
    if case.stage.trained_codec is not None:
        keys = ("steps", "seed", "guidance", "sampler", "grid", "prompts")
        yield from set_keys(case, "previews", recipe.previews, keys, "a codec's previews are reconstructions")
    turn = case.turn
    if turn is None or probe is None:
        return
    if not turn.pipeline.conditioners and case.sets(recipe, "probe"):
        yield "probe", "the model has no conditions to try"
    elif len(turn.names) < 2:
        yield from set_keys(case, "probe", probe, ("alone",), "there are no others to drop beside a condition")


def _tracking(case: Case) -> Reasons:
    section = case.recipe.tracking
    if not set(section.to) - {"tensorboard"}:
        reason = "none of the trackers has projects" if section.to else "nothing is tracked (`to` is empty)"
        yield from set_keys(case, "tracking", section, ("project",), reason)


def _pictures(case: Case) -> Reasons:
    section = case.recipe.data
    if section.fit != "random-crop":
        yield from set_keys(case, "data", section, ("crop_scale",), f"fit: {section.fit} has no random crops")
    if not case.stage.inputs:
        keys = ("inputs", "moves", "extract")
        yield from set_keys(case, "data", section, keys, "this stage reads pictures alone")
    else:
        for name in section.extract:
            if section.inputs.get(name, name) not in case.stage.inputs:
                yield f"data.extract.{name}", "the model does not read it"
        for name in section.moves:
            if section.inputs.get(name, name) not in case.stage.inputs:
                yield f"data.moves.{name}", "the model does not read it"


def _captions(case: Case) -> Reasons:
    section = case.recipe.data
    for name, rule in section.captions.items():
        if case.stage.inputs and section.inputs.get(name, name) not in case.stage.inputs:
            yield f"data.captions.{name}", "the model does not read it"
        elif not rule.tagged:
            reason = "neither `shuffle` nor `tag_dropout` takes texts apart"
            yield from set_keys(case, f"data.captions.{name}", rule, ("keep", "separator"), reason)
    if not case.stage.inputs:
        yield from set_keys(case, "data", section, ("captions",), "this stage reads pictures alone")


def _cache(case: Case) -> Reasons:
    section, cache = case.recipe.data, case.recipe.data.cache
    if cache is None:
        return
    if not case.stage.reads_images:
        yield "data.cache", "this stage looks at no pictures"
    if cache.views > 1 and not section.random:
        yield "data.cache.views", "nothing is cropped or mirrored at random: all views are alike"
    if cache.deviation and (objective := _with_posterior(case)) is not None and objective.posterior == "mode":
        reason = "objective.posterior: mode reads no deviation"
        yield from set_keys(case, "data.cache", cache, ("deviation",), reason)


def _posterior(case: Case) -> Reasons:
    codec, cache, objective = case.stage.frozen_codec, case.recipe.data.cache, _with_posterior(case)
    if codec is None or objective is None or not case.sets(objective, "posterior"):
        return
    if cache is not None and not cache.deviation and objective.posterior == "sample":
        reason = "data.cache.deviation: false keeps the mode alone"
    elif not _has_posterior(codec):
        reason = "the codec has no posterior: its latents do not depend on noise"
    else:
        return
    yield "objective.posterior", reason


def _with_posterior(case: Case) -> DenoiserObjective | ClassifierObjective | None:
    """The objective, if it chooses between a sample and the mode of the posterior."""
    recipe = case.recipe
    return recipe.objective if isinstance(recipe, (DenoiserConfig, ClassifierConfig)) else None


def _has_posterior(codec: Codec) -> bool:
    image = torch.zeros(1, 3, codec.multiple, codec.multiple, device=codec.device, dtype=codec.dtype)
    try:
        with undisturbed([codec]):
            mode = codec.encode(image)
            return not torch.equal(codec.encode(image, torch.ones_like(mode)), mode)
    except LdmkitError:  # the codec does not accept pictures of that size: reported elsewhere
        return True


def _codec_objective(case: Case) -> Reasons:
    if not isinstance(case.recipe, CodecConfig):
        return
    objective, adversary = case.recipe.objective, case.recipe.objective.discriminator
    perceptual, steps = objective.perceptual, case.recipe.steps
    if perceptual.type == "none":
        keys: tuple[str, ...] = ("config", "files", "weight")
        yield from set_keys(case, "objective.perceptual", perceptual, keys, "type: none has no distance")
    elif perceptual.weight == 0 and (case.held is None or case.recipe.validation is None):
        keys = ("type", "config", "files")
        yield from set_keys(case, "objective.perceptual", perceptual, keys, "its weight is 0, and nothing is validated")
    if adversary is not None and steps and adversary.start >= steps:
        last = f"and the last step is {steps - 1} (counted from 0): it never acts"
        yield "objective.discriminator", f"its `start` is {adversary.start}, {last}"
    for name, key in (("kl", "kl_weight"), ("codebook", "codebook_weight")):
        if not case.sets(objective, key):
            continue
        if case.recipe.model.train == "decoder":
            yield f"objective.{key}", "model.train: decoder leaves the encoder as it is, and the latents with it"
        elif (losses := _regularisers(case.stage)) is not None and name not in losses:
            yield f"objective.{key}", f"{type(case.stage.codec).__name__} has no such loss"


def _regularisers(stage: Stage) -> frozenset[str] | None:
    """Names of the losses that a codec adds to its reconstruction; None if they cannot be determined."""
    codec = stage.trained_codec
    if codec is None:
        return None
    side = 4 * codec.multiple
    try:
        with undisturbed([codec]):
            made = codec.reconstruct(torch.zeros(1, 3, side, side, device=codec.device, dtype=codec.dtype))
    except LdmkitError:
        return None
    return frozenset(made.losses)


def _denoiser_objective(case: Case) -> Reasons:
    turn = case.turn
    if not isinstance(case.recipe, DenoiserConfig | StartedConfig) or turn is None:
        return
    objective = case.recipe.objective
    if objective.simple == 0:
        yield from set_keys(case, "objective", objective, ("weighting", "logvar"), "simple: 0 leaves that loss out")
    logvar = objective.logvar
    if logvar is not None and not logvar.train and logvar.init == 0:
        yield "objective.logvar", "`init` 0 that is not trained changes nothing"
    dropout, names = objective.dropout, turn.names
    if not names:
        yield from set_keys(case, "objective.dropout", dropout, ("none", "all"), "no condition may be dropped")
    if dropout.none + dropout.all + sum(dropout.alone.values()) >= 1:
        yield from set_keys(case, "objective.dropout", dropout, ("rates",), "the other rules take all rows")
    for key, shares in (("rates", dropout.rates), ("alone", dropout.alone)):
        for name in shares:
            if name in names and name not in case.given:
                yield f"objective.dropout.{key}.{name}", "the data have no such input: its null is all that is seen"


def _denoiser_model(case: Case) -> Reasons:
    if not isinstance(case.recipe, DenoiserConfig):
        return
    if case.recipe.sharded and case.processes == 1:
        yield "sharded", "there is one process"
    for name, section in case.recipe.model.conditioners.items():
        if section is not None and section.shares is not None:
            reason = f"its weights are those of {section.shares!r} (`shares`)"
            yield from set_keys(case, f"model.conditioners.{name}", section, ("from_", "train"), reason)


def _codec_source(case: Case) -> Reasons:
    recipe = case.recipe
    codec = recipe.model.codec if isinstance(recipe, (DenoiserConfig, ClassifierConfig)) else None
    if codec is not None and codec.from_ is not None:
        yield from set_keys(case, "model.codec", codec, ("config",), "the codec in `from` has its own")


def _continued(case: Case) -> Reasons:
    """Keys of a new adapter, where one that exists goes on."""
    recipe = case.recipe
    if isinstance(recipe, ControlNetRecipe) and recipe.controlnet.start is not None:
        section = recipe.controlnet
        yield from set_keys(
            case, "controlnet", section, ("channels", "widths"), "the ControlNet in `start` has its own"
        )


def _prompt_drop(case: Case) -> Reasons:
    recipe, turn = case.recipe, case.turn
    if isinstance(recipe, IPAdapterRecipe) and turn is not None and len(turn.names) < 2:
        section = recipe.ip_adapter.drop
        yield from set_keys(case, "ip_adapter.drop", section, ("text",), "nothing but the picture may be dropped")


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Recipe.optimiser", "Recipe.schedule", "Recipe.accumulate", "Recipe.clip"), untrained),
    **dict.fromkeys(("Recipe.ema", "Recipe.precision"), untrained),
    **dict.fromkeys((f"OptimiserSection.{key}" for key in ("betas", "eps", "momentum", "decay", "lr")), optimiser),
    "OptimiserSection.weight_decay": optimiser,
    **dict.fromkeys(("Warmed.type", "Warmed.warmup", "Warmed.final", "Cycles.lengths"), schedule),
    "Cycles.warmup": schedule,
    "EmaSection.decay": ema,
    **dict.fromkeys(
        (f"{name}Section.every" for name in ("Checkpoints", "Validation", "Previews", "Probe")), _intervals
    ),
    "TrackingSection.every": _intervals,
    **dict.fromkeys(("Recipe.validation", "DataSection.validation", "ValidationSection.count"), _held_out),
    **dict.fromkeys((f"PreviewsSection.{key}" for key in ("count", "steps", "seed", "guidance")), _previews_and_probe),
    **dict.fromkeys((f"PreviewsSection.{key}" for key in ("sampler", "grid", "prompts")), _previews_and_probe),
    **dict.fromkeys(("Probing.probe", "ProbeSection.count", "ProbeSection.alone"), _previews_and_probe),
    "TrackingSection.project": _tracking,
    **dict.fromkeys((f"DataSection.{key}" for key in ("crop_scale", "inputs", "moves", "extract")), _pictures),
    **dict.fromkeys(("DataSection.captions", "CaptionRule.keep", "CaptionRule.separator"), _captions),
    **dict.fromkeys(("DataSection.cache", "CacheSection.views", "CacheSection.deviation"), _cache),
    **dict.fromkeys(("DenoiserObjective.posterior", "ClassifierObjective.posterior"), _posterior),
    **dict.fromkeys((f"PerceptualSection.{key}" for key in ("type", "config", "files", "weight")), _codec_objective),
    **dict.fromkeys(("CodecObjective.discriminator", "DiscriminatorSection.start"), _codec_objective),
    **dict.fromkeys(("CodecObjective.kl_weight", "CodecObjective.codebook_weight"), _codec_objective),
    **dict.fromkeys((f"DenoiserObjective.{key}" for key in ("weighting", "logvar")), _denoiser_objective),
    **dict.fromkeys(("LogVariance.init", "LogVariance.train"), _denoiser_objective),
    **dict.fromkeys((f"ConditionDropout.{key}" for key in ("none", "all", "rates", "alone")), _denoiser_objective),
    **dict.fromkeys(("Sharding.sharded", "ConditionerSection.from_", "ConditionerSection.train"), _denoiser_model),
    **dict.fromkeys(("ControlNetSection.channels", "ControlNetSection.widths"), _continued),
    "PromptDrop.text": _prompt_drop,
    "FrozenCodecSection.config": _codec_source,
}
"""Class and key -> the rule for when it cannot take effect."""


ALWAYS = frozenset(
    f"{name}.{key}"
    for name, keys in {
        "Recipe": "stage out seed steps data checkpoints previews tracking",
        "CodecConfig": "steps model objective",
        "DenoiserConfig": "model objective gradient_checkpointing compile",
        "ClassifierConfig": "model objective previews",
        "ProposerConfig": "model previews",
        "ConsistencyTraining": "steps model objective",
        "ConsistencySection": "codec config start",
        "ConsistencyObjective": "levels huber posterior",
        "LoraConfig": "lora",
        "LoraSection": "rank alpha targets conditioners ranks dora dropout layout",
        "ControlNetRecipe": "controlnet",
        "ControlNetSection": "input start",
        "DreamBoothConfig": "prior",
        "PriorSection": "inputs count weight steps guidance batch",
        "TextualInversionConfig": "token",
        "TokenSection": "word vectors init layout",
        "IPAdapterRecipe": "ip_adapter",
        "IPAdapterSection": "encoder tokens start drop",  # tokens beside `start` are an error
        "PromptDrop": "image both",
        "StartedConfig": "model objective gradient_checkpointing",
        "StartSection": "start variant",
        "DataSection": "train size fit buckets mirror batch held_out workers damaged",
        "BucketsSection": "step ratio small",
        "CaptionRule": "shares prefix suffix shuffle tag_dropout dropout",
        "CacheSection": "folder dtype batch",
        "PartSpec": "type config distribution version",  # the last two say where a part came from
        "OptimiserSection": "type rates options",  # a rate of a turn that does not exist is an error
        "Cycles": "type start peak floor",  # one for each of `lengths`
        "EmaSection": "warmup",
        "CheckpointsSection": "keep best",
        "BestSection": "figure highest",
        "Prompt": "inputs seed size",
        "TrackingSection": "to",
        "ProbeSection": "levels silent",
        "CodecSection": "type config start train",
        "FrozenCodecSection": "from_ type scale variant",  # what excludes one another is an error
        "CodecObjective": "pixel reduction perceptual logvar learn_logvar statistics",
        "DiscriminatorSection": "layers width norm loss weight adaptive",
        "ModelSection": "codec denoiser process conditioners adapters defaults start variant",
        "DenoiserSection": "train",
        "ConditionerSpec": "slot null input shares",
        "ConditionerSection": "assets variant",
        "AdapterSection": "train",
        "Defaults": "sampler grid guidance steps size dtype locked",  # saved with the model
        "DenoiserObjective": "norm times dropout simple elbo variance mask noise_offset pyramid",
        "MaskedLoss": "input outside",
        "PyramidNoise": "discount levels",
        "_Times": "stratified",
        "UniformTimes": "type",
        "PowerTimes": "type exponent",
        "LogitNormalTimes": "type mean std",
        "LogNormalTimes": "type mean std",
        "Uniform": "type",
        "MinSNR": "type gamma",
        "SNR": "type",
        "TruncatedSNR": "type least",
        "SNRPlusOne": "type",
        "P2": "type k gamma",
        "Debiased": "type",
        "EDMWeighting": "type sigma_data",
        "Sigmoid": "type bias",
        "ClassifierSection": "codec type config start",
        "ClassifierObjective": "label times smoothing",
        "ProposerSection": "start conditioner type config assets",
    }.items()
    for key in keys.split()
)
"""Keys that always take effect."""
