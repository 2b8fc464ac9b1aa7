"""Conditioner specs from CompVis' cond_stage_config and sgm's GeneralConditioner.

An unknown target or parameter is an error: it might change what the model computes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ldmkit import SourceError, suggest
from ldmkit_checkpoints.compvis.text_keys import conditioner_keys
from ldmkit_checkpoints.keys import KeyMap, prefixed


class PlannedConditioner(NamedTuple):
    """A conditioner to build, and the location of its weights.

    Args:
        name: name in the spec.
        spec: the data of a `ConditionerSpec`.
        prefix: prefix of its keys in the file.
        layout: layout of its keys, for `conditioner_keys`; empty if it has no weights itself.
    """

    name: str
    spec: dict[str, Any]
    prefix: str
    layout: str

    def keymap(self) -> KeyMap:
        """Key map with the file's keys; empty if it has no weights itself."""
        if not self.layout:
            return {}
        return prefixed(conditioner_keys(self.spec["type"], self.spec["config"], self.layout), foreign=self.prefix)


OPEN_CLIP: dict[str, dict[str, Any]] = {
    "ViT-L-14": {"width": 768, "heads": 12, "layers": 12, "mlp": 3072, "projection": 768},
    "ViT-H-14": {"width": 1024, "heads": 16, "layers": 24, "mlp": 4096, "projection": 1024},
    "ViT-g-14": {"width": 1024, "heads": 16, "layers": 24, "mlp": 4096, "projection": 1024},
    "ViT-bigG-14": {"width": 1280, "heads": 20, "layers": 32, "mlp": 5120, "projection": 1280},
}
"""open-CLIP's text towers by architecture."""

SIZE_KEYS = {
    "original_size_as_tuple": "original",
    "crop_coords_top_left": "crop",
    "target_size_as_tuple": "target",
    "aesthetic_score": "aesthetic",
}
"""sgm's input key -> input of `size-codes`."""

_CLIP_L = {"width": 768, "heads": 12, "layers": 12, "mlp": 3072}
_OPEN = {"activation": "gelu", "pad": 0, "pool": "argmax"}
_UNUSED = {"device", "freeze", "version", "is_trainable", "ucg_rate", "input_key", "input_keys", "legacy_ucg_val"}


def conditioners_from_compvis(
    cond_stage: Mapping[str, Any] | str,
    model: Mapping[str, Any],
    latent_channels: int,
    where: str = "cond_stage_config",
) -> list[PlannedConditioner]:
    """Conditioners of a LatentDiffusion yaml.

    Args:
        cond_stage: `cond_stage_config`: target and params, or one of the two special words.
        model: params of the model (`cond_stage_key`, `conditioning_key`, `concat_mode` are read).
        latent_channels: latent channels of the first stage.

    Raises:
        SourceError: an unknown target, parameter or use.
    """
    key, prefix = str(model.get("cond_stage_key", "image")), "cond_stage_model."
    if cond_stage == "__is_unconditional__":
        return []
    if cond_stage == "__is_first_stage__":
        if key != "masked_image":
            what = f"the first stage as conditioner for {key!r}"
            raise SourceError("unknown-condition", what, where=where, fits="cond_stage_key masked_image (inpainting)")
        return [PlannedConditioner("masked-image", _spec("masked-image", latent_channels=latent_channels), prefix, "")]
    if not isinstance(cond_stage, Mapping):
        raise SourceError(
            "unknown-target", f"{cond_stage!r} is not a conditioner", where=where, fits="target and params"
        )
    target, params = str(cond_stage.get("target")), dict(cond_stage.get("params") or {})
    if target == "torch.nn.Identity":
        return [_identity(key, model, prefix, where)]
    make = _known(target, _COMPVIS, where)
    return [make(params, key, prefix, where)]


def conditioners_from_sgm(
    section: Mapping[str, Any], where: str = "conditioner_config", prefix: str = "conditioner.embedders."
) -> list[PlannedConditioner]:
    """Conditioners of sgm's GeneralConditioner, in order; texts share one input, size embedders become one part.

    Raises:
        SourceError: an unknown target or parameter.
    """
    models = (section.get("params") or {}).get("emb_models")
    if not isinstance(models, Sequence) or isinstance(models, str):
        raise SourceError("missing-section", "emb_models is not a list", where=f"{where}.params")
    planned: list[PlannedConditioner] = []
    for i, model in enumerate(models):
        place = f"{where}.params.emb_models[{i}]"
        if not isinstance(model, Mapping):
            raise SourceError("missing-section", "an embedder is not a mapping", where=place)
        params = dict(model.get("params") or {})
        make = _known(str(model.get("target")), _SGM, place)
        planned += make(params, str(model.get("input_key")), f"{prefix}{i}.", place)
    return _named(_merged_sizes(planned))


def _spec(kind: str, /, **config: Any) -> dict[str, Any]:
    return {"type": kind, "config": config}


def _known(target: str, makers: Mapping[str, Any], where: str) -> Any:
    name = target.rsplit(".", 1)[-1]
    if name not in makers:
        what = f"unknown conditioner {target!r}"
        raise SourceError("unknown-target", what, where=f"{where}.target", fits=suggest(name, makers))
    return makers[name]


def _only(params: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for name in params:
        if name not in known and name not in _UNUSED:
            what = f"unknown parameter {name!r}"
            raise SourceError("unknown-parameter", what, where=f"{where}.params.{name}", fits=suggest(name, known))


def _number(params: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    """An integer parameter.

    Raises:
        SourceError: it is missing without a default, or not an integer.
    """
    value = params.get(name, default)
    if value is None:
        raise SourceError("missing-parameter", f"{name!r} is required", where=f"{where}.params")
    if isinstance(value, bool) or not isinstance(value, int):
        raise SourceError("unknown-parameter", f"{value!r} is not an integer", where=f"{where}.params.{name}")
    return value


def _identity(key: str, model: Mapping[str, Any], prefix: str, where: str) -> PlannedConditioner:
    use = model.get("conditioning_key") or ("concat" if model.get("concat_mode", True) else "crossattn")
    if use != "concat":
        what = f"torch.nn.Identity for {key!r}, read by {use}: the condition is computed elsewhere"
        raise SourceError("unknown-condition", what, where=where, fits="a picture that is concatenated")
    return PlannedConditioner("image", _spec("image"), prefix, "")


def _class_embedder(params: dict[str, Any], key: str, prefix: str, where: str) -> PlannedConditioner:
    _only(params, {"n_classes", "embed_dim", "key"}, where)
    n_classes = _number(params, "n_classes", where, 1000)
    null = n_classes - 1 if n_classes == 1001 or params.get("ucg_rate") else None
    config = {"n_classes": n_classes, "dim": _number(params, "embed_dim", where), "null_class": null}
    return PlannedConditioner("label", _spec("label", **config), prefix, "compvis")


def _bert(params: dict[str, Any], key: str, prefix: str, where: str) -> PlannedConditioner:
    known = {"n_embed", "n_layer", "vocab_size", "max_seq_len", "use_tokenizer", "embedding_dropout"}
    _only(params, known, where)
    vocab, length = _number(params, "vocab_size", where, 30522), _number(params, "max_seq_len", where, 77)
    words = bool(params.get("use_tokenizer", True))
    shape = {"dim": _number(params, "n_embed", where), "layers": _number(params, "n_layer", where)}
    if not words and key == "coordinates_bbox":
        objects, rest = divmod(length, 3)
        if rest == 1:
            raise SourceError("unknown-parameter", f"{length} layout tokens", where=where, fits="3 n, or 3 n + 2")
        layout = {"n_tokens": vocab, "max_objects": objects, "encode_crop": rest == 2}
        return PlannedConditioner("layout", _spec("layout-tokens", **shape, **layout), prefix, "bert")
    config = {**shape, "vocab_size": vocab, "max_length": length, "words": words}
    return PlannedConditioner("text", _spec("ldm-text", **config), prefix, "bert")


def _transformer_ids(params: dict[str, Any], key: str, prefix: str, where: str) -> PlannedConditioner:
    return _bert({**params, "use_tokenizer": False}, key, prefix, where)


def _rescaler(params: dict[str, Any], key: str, prefix: str, where: str) -> PlannedConditioner:
    _only(params, {"n_stages", "method", "multiplier", "in_channels", "out_channels", "bias"}, where)
    config = {
        "n_classes": params.get("in_channels", 3),
        "dim": params.get("out_channels"),
        "stages": params.get("n_stages", 1),
        "multiplier": params.get("multiplier", 0.5),
        "method": params.get("method", "bilinear"),
        "bias": params.get("bias", False),
        "zero_null": False,
    }
    return PlannedConditioner("semantic", _spec("semantic", **config), prefix, "compvis")


def _clip(params: dict[str, Any], key: str, prefix: str, where: str) -> PlannedConditioner:
    _only(params, {"max_length", "layer", "layer_idx", "always_return_pooled"}, where)
    layer = params.get("layer", "last")
    if layer not in ("last", "hidden") or (layer == "hidden") != (params.get("layer_idx") is not None):
        what = f"layer {layer!r} with layer_idx {params.get('layer_idx')}"
        raise SourceError(
            "unknown-parameter", what, where=f"{where}.params.layer", fits="last, or hidden with an index"
        )
    config = {
        **_CLIP_L,
        "layer": layer if layer == "last" else _number(params, "layer_idx", where),
        "final_norm": layer == "last",
    }
    config["positions"] = params.get("max_length", 77)
    return PlannedConditioner("text", _spec("clip-text", **config), f"{prefix}transformer.", "hf")


def _open_clip(params: dict[str, Any], key: str, prefix: str, where: str) -> PlannedConditioner:
    known = {"arch", "max_length", "layer", "legacy", "always_return_pooled"}
    _only(params, known, where)
    shape = _arch(params, where)
    config = {**shape, "projection": None, **_OPEN, "layer": params.get("layer", "last"), "final_norm": True}
    return PlannedConditioner("text", _spec("clip-text", **config), f"{prefix}model.", "open-clip")


def _arch(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    arch = str(params.get("arch", "ViT-H-14"))
    if arch not in OPEN_CLIP:
        what = f"unknown architecture {arch!r}"
        raise SourceError("unknown-parameter", what, where=f"{where}.params.arch", fits=suggest(arch, OPEN_CLIP))
    if params.get("layer", "last") not in ("last", "penultimate"):
        what = f"layer {params['layer']!r}"
        raise SourceError("unknown-parameter", what, where=f"{where}.params.layer", fits="last or penultimate")
    return {**OPEN_CLIP[arch], "positions": params.get("max_length", 77)}


_COMPVIS: dict[str, Callable[[dict[str, Any], str, str, str], PlannedConditioner]] = {
    "ClassEmbedder": _class_embedder,
    "BERTEmbedder": _bert,
    "TransformerEmbedder": _transformer_ids,
    "SpatialRescaler": _rescaler,
    "FrozenCLIPEmbedder": _clip,
    "FrozenOpenCLIPEmbedder": _open_clip,
}


def _sgm_clip(params: dict[str, Any], key: str, prefix: str, where: str) -> list[PlannedConditioner]:
    return [_clip(params, key, prefix, where)]


def _sgm_open_clip(params: dict[str, Any], key: str, prefix: str, where: str) -> list[PlannedConditioner]:
    return [_open_clip(params, key, prefix, where)]


def _sgm_open_clip2(params: dict[str, Any], key: str, prefix: str, where: str) -> list[PlannedConditioner]:
    """Hidden states and the pooled vector of one tower; `legacy` applies the final norm to the states."""
    _only(params, {"arch", "max_length", "layer", "legacy", "always_return_pooled"}, where)
    config = {**_arch(params, where), **_OPEN}
    layer, legacy = params.get("layer", "last"), bool(params.get("legacy", True))
    text = _spec("clip-text", **config, layer=layer, final_norm=legacy or layer == "last")
    planned = [PlannedConditioner("text", text, f"{prefix}model.", "open-clip")]
    if params.get("always_return_pooled"):
        pooled = {**_spec("clip-pooled", **config), "shares": "text"}
        planned.append(PlannedConditioner("pooled", pooled, f"{prefix}model.", ""))
    return planned


def _sgm_size(params: dict[str, Any], key: str, prefix: str, where: str) -> list[PlannedConditioner]:
    _only(params, {"outdim"}, where)
    if key not in SIZE_KEYS:
        raise SourceError("unknown-condition", f"input {key!r}", where=where, fits=suggest(key, SIZE_KEYS))
    config = {"reads": [SIZE_KEYS[key]], "width": _number(params, "outdim", where)}
    return [PlannedConditioner("sizes", _spec("size-codes", **config), prefix, "")]


def _sgm_class(params: dict[str, Any], key: str, prefix: str, where: str) -> list[PlannedConditioner]:
    _only(params, {"n_classes", "embed_dim", "add_sequence_dim"}, where)
    emit = "tokens" if params.get("add_sequence_dim") else "vector"
    n_classes, dim = _number(params, "n_classes", where, 1000), _number(params, "embed_dim", where)
    config = {"n_classes": n_classes, "dim": dim, "emit": emit}
    return [PlannedConditioner("label", _spec("label", **config, zero_null=True), prefix, "compvis")]


_SGM: dict[str, Callable[[dict[str, Any], str, str, str], list[PlannedConditioner]]] = {
    "FrozenCLIPEmbedder": _sgm_clip,
    "FrozenOpenCLIPEmbedder": _sgm_open_clip,
    "FrozenOpenCLIPEmbedder2": _sgm_open_clip2,
    "ConcatTimestepEmbedderND": _sgm_size,
    "ClassEmbedder": _sgm_class,
}


def _merged_sizes(planned: Sequence[PlannedConditioner]) -> list[PlannedConditioner]:
    """Merge consecutive size embedders into one part; their codes are concatenated in this order."""
    merged: list[PlannedConditioner] = []
    for item in planned:
        before = merged[-1] if merged else None
        config = item.spec["config"]
        if (
            before is None
            or item.name != "sizes"
            or before.name != "sizes"
            or before.spec["config"]["width"] != config["width"]
        ):
            merged.append(item)
            continue
        reads = [*before.spec["config"]["reads"], *config["reads"]]
        merged[-1] = before._replace(spec={**before.spec, "config": {**config, "reads": reads}})
    return merged


def _named(planned: Sequence[PlannedConditioner]) -> list[PlannedConditioner]:
    """Make names unique; all texts read the input `text`, and a pooled part shares the preceding tower."""
    named: list[PlannedConditioner] = []
    for item in planned:
        count = sum(1 for other in named if other.name.partition("-")[0] == item.name)
        name = item.name if not count else f"{item.name}-{count + 1}"
        spec = dict(item.spec)
        if spec["type"] in ("clip-text", "clip-pooled") and name != "text":
            spec["input"] = "text"
        if "shares" in spec:
            spec["shares"] = named[-1].name
        named.append(item._replace(name=name, spec=spec))
    return named
