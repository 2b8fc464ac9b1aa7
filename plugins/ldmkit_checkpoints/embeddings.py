"""Files of learnt words (textual inversion), by their contents.

| written by | contents |
|---|---|
| A1111, the authors of arXiv:2208.01618 | `{"string_to_param": {"*": (n, d)}, "name": ...}` |
| A1111, kohya's scripts (safetensors) | `{"emb_params": (n, d)}` |
| kohya, OneTrainer, diffusers, for SDXL | `{"clip_l": (n, 768), "clip_g": (n, 1280)}`, `text_encoders_0` and `_1` |
| diffusers | `{"<word>": (d,) or (n, d)}`, one for each word; or a tensor alone |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import Tensor

from ldmkit import LazyTensor, Learnt, SourceError
from ldmkit.files.reading import check_ordinary
from ldmkit.models.weights import open_safetensors, write_safetensors
from ldmkit.printable import first_few
from ldmkit_checkpoints.torchfile.state_dict import open_pickled
from ldmkit_checkpoints.unsupported.files import refuse_unsupported_file

TOWERS = {"clip_l": "clip_l", "clip_g": "clip_g", "text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}
OTHER_TOWERS = ("t5xxl", "t5", "clip_h", "llama", "qwen")
SINGLE = "emb_params"
_IN_FOLDERS = ("learned_embeds.safetensors", "learned_embeds.bin")
_PARAMS = "string_to_param"


def open_embedding(path: Path) -> Sequence[Learnt] | None:
    """The learnt vectors of a file, or of a folder as diffusers' training writes it; None where there are none.

    Raises:
        SourceError: it cannot be read; `unknown-key`, `several-tokens`: it has more than such files have.
    """
    if path.is_dir():
        inner = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
        if inner is None:
            return None
        path = inner
    check_ordinary(path)
    with path.open("rb") as file:
        start = file.read(10)
    safe = start[7:] == b'\0{"'
    if not safe and not start.startswith(b"PK\x03\x04"):
        refuse_unsupported_file(path)
        safe = path.suffix == ".safetensors"
    tree: Any = open_safetensors(path) if safe else open_pickled(path)
    if isinstance(tree, LazyTensor):
        return [Learnt(None, "", "the tensor", tree)]
    if not isinstance(tree, dict):
        return None
    if _PARAMS in tree:
        return [_of_a1111(tree, str(path))]
    tensors = {key: value for key, value in tree.items() if isinstance(key, str) and isinstance(value, LazyTensor)}
    return _of_tensors(tensors, str(path)) if tensors and len(tensors) == len(tree) else None


EmbeddingLayout: TypeAlias = Literal["diffusers", "a1111"]


def write_embedding(file: Path, word: str, vectors: Mapping[str, Tensor], layout: EmbeddingLayout) -> None:
    """Write the vectors (n, width) of a word, by text encoder in their order: of several as `clip_l` and `clip_g`.

    Raises:
        SourceError: `not-expressible`: more text encoders than such files have.
        RunError: `cannot-write`.
    """
    keys = list(dict.fromkeys(TOWERS.values()))
    if len(vectors) > len(keys):
        what = f"there are {len(vectors)} text encoders: {', '.join(vectors)}"
        raise SourceError("not-expressible", what, where=str(file), fits=f"at most {len(keys)}")
    own = [word if layout == "diffusers" else SINGLE] if len(vectors) == 1 else keys
    tensors = dict(zip(own, vectors.values(), strict=True))
    write_safetensors(file, {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})


def _of_a1111(tree: Mapping[Any, Any], where: str) -> Learnt:
    params, name = tree[_PARAMS], tree.get("name")
    if not isinstance(params, dict) or len(params) != 1:
        held = f"{len(params)} entries" if isinstance(params, dict) else f"a {type(params).__name__}"
        what = f"its {_PARAMS!r} is {held}"
        raise SourceError("several-tokens", what, where=where, fits="one entry, '*', with the vectors of one word")
    ((key, tensor),) = params.items()
    if not isinstance(tensor, LazyTensor):
        what = f"{_PARAMS!r} has a {type(tensor).__name__} under {key!r}"
        raise SourceError("no-tensors", what, where=where, fits="a tensor (n, width)")
    return Learnt(name if isinstance(name, str) and name.strip() else None, "", f"{_PARAMS}.{key}", tensor)


def _of_tensors(tensors: Mapping[str, LazyTensor], where: str) -> Sequence[Learnt] | None:
    towers = {key: TOWERS[key] for key in tensors if key in TOWERS}
    others = [key for key in tensors if key not in towers]
    if SINGLE in tensors or towers:
        strange = [key for key in others if key not in OTHER_TOWERS and not (key == SINGLE and not towers)]
        if strange:
            what = f"beside {first_few([key for key in tensors if key not in strange])} it has {first_few(strange)}"
            fits = f"{SINGLE} alone, or clip_l and clip_g"
            raise SourceError("unknown-key", what, where=where, fits=fits)
        if len(set(towers.values())) < len(towers):
            what = f"{first_few(list(towers))} are of one text encoder twice"
            raise SourceError("duplicate-key", what, where=where, fits="clip_l and clip_g")
        return [Learnt(None, towers.get(key, "" if key == SINGLE else key), key, one) for key, one in tensors.items()]
    words = all(key.startswith("<") or "." not in key for key in tensors)
    if not words and (len(tensors) > 1 or next(iter(tensors)).endswith((".weight", ".bias"))):
        return None  # a model, or a LoRA
    return [Learnt(key, "", key, one) for key, one in tensors.items()]
