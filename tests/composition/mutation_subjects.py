"""One small good folder of every format that is read, and how it is read."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny_parts
import torch
from ldmkit_checkpoints.compvis.yaml_config import read_yaml
from ldmkit_checkpoints.torchfile.state_dict import open_state_dict
from ldmkit_conditioners.bpe import CLIP_END, CLIP_START, bert_vocabulary, clip_vocabulary
from ldmkit_training.before.recipe import read_training_recipe as read_training
from ldmkit_training.data.section import open_part
from ldmkit_training.loop import checkpoints
from mutations import Subject, tensors_of
from PIL import Image
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor

import ldmkit
from ldmkit.files.json import read_json
from ldmkit.files.pictures import read_label_map, read_picture
from ldmkit.models.compose import compose
from ldmkit.models.reading import open_source
from ldmkit.models.saving import save_part
from ldmkit.models.spec import PartSpec, PipelineSpec
from ldmkit.models.weights import open_safetensors
from ldmkit.run.recipe import read_recipe

STATE = {"a.weight": torch.arange(24.0).reshape(4, 6), "a.bias": torch.ones(4), "steps": torch.tensor(3)}
ENDINGS = ("jpg", "gif", "webp", "tiff", "bmp", "ppm")
SHOWN = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)


def prepared(work: Path) -> list[tuple[Subject, Path, str]]:
    """(subject, its good folder, what is read from that) of every format."""
    made = []
    for build in BUILDERS:
        folder = work / f"good-{build.__name__}"
        folder.mkdir()
        subject = build(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.append((subject, folder, subject.read(folder)))
    return made


def _loaded(folder: Path) -> str:
    pipe = ldmkit.load(folder / "model")
    return pipe.spec.hash + "".join(tensors_of_part(part.state_dict()) for part in pipe.parts.items().values())


def tensors_of_part(state: dict[str, Tensor]) -> str:
    """Names and numbers of a part's tensors."""
    return tensors_of({key: ldmkit.models.weights.LazyTensor.of(value) for key, value in state.items()})


def saved_weights(folder: Path) -> Subject:
    tiny_parts.class_pipeline().save(folder / "model")
    files = ("model/denoiser.safetensors", "model/conditioners/label.safetensors")
    return Subject("saved-weights", files, _loaded, exact=True)


def saved_spec(folder: Path) -> Subject:
    tiny_parts.class_pipeline().save(folder / "model")
    return Subject("saved-spec", ("model/pipeline.json",), _loaded, exact=True)


def spec(folder: Path) -> Subject:
    def read(folder: Path) -> str:
        found = PipelineSpec.read(read_json(folder / "pipeline.json"), "pipeline.json")
        compose(found)
        return found.hash

    data = {k: v for k, v in tiny_parts.class_pipeline().spec.to_json().items() if k not in ("files", "digest")}
    (folder / "pipeline.json").write_text(json.dumps(data))
    return Subject("spec", ("pipeline.json",), read)


def safetensors(folder: Path) -> Subject:
    save_file(STATE, folder / "a.safetensors", {"format": "pt", "modelspec.title": "a"})
    return Subject(
        "safetensors", ("a.safetensors",), lambda folder: tensors_of(open_safetensors(folder / "a.safetensors"))
    )


def checkpoint(folder: Path) -> Subject:
    torch.save({"state_dict": STATE, "epoch": 3}, folder / "a.ckpt")
    read = lambda folder: tensors_of(open_state_dict(folder / "a.ckpt")[0])  # noqa: E731
    return Subject("checkpoint", ("a.ckpt",), read, exact=True)


def checkpoint_opened(folder: Path) -> Subject:
    torch.save({"state_dict": STATE, "epoch": 3}, folder / "a.ckpt")
    save_file(STATE, folder / "a.safetensors")

    def read(folder: Path) -> str:
        try:
            return str(open_source(folder / "a.ckpt").spec)
        except ldmkit.LdmkitError as one:
            try:
                return str(open_source(folder / "a.safetensors").spec)
            except ldmkit.LdmkitError as two:
                return f"{one.code} {two.code}"

    return Subject("checkpoint-opened", ("a.ckpt", "a.safetensors"), read)


def legacy(folder: Path) -> Subject:
    torch.save({"state_dict": STATE}, folder / "a.pt", _use_new_zipfile_serialization=False)
    with tarfile.open(folder / "b.pt", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"12345"))

    def read(folder: Path) -> str:
        codes = []
        for name in ("a.pt", "b.pt"):
            try:
                codes.append(tensors_of(open_state_dict(folder / name)[0]))
            except ldmkit.LdmkitError as error:
                codes.append(error.code)
        return " ".join(codes)

    return Subject("legacy", ("a.pt", "b.pt"), read)


def _clip_base(folder: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("c", "d</w>"), ("ab", "cd</w>")]
    words = [*letters, *(f"{c}</w>" for c in letters), *("".join(m) for m in merges), CLIP_START, CLIP_END]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]))
    names = {"bos_token": CLIP_START, "eos_token": {"content": CLIP_END, "lstrip": False}, "pad_token": "!"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "model_max_length": 77}))
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    (folder / "added_tokens.json").write_text(json.dumps({"<cat>": len(words)}))


def _encoded(vocabulary: Any) -> str:
    return "none" if vocabulary is None else f"{vocabulary.encode('ab abcd <cat> Zebra é', 16)} {vocabulary.pad}"


def tokenizer_slow(folder: Path) -> Subject:
    _clip_base(folder)
    files = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    return Subject("tokenizer-slow", files, lambda folder: _encoded(clip_vocabulary(folder, 1000)))


def tokenizer_fast(folder: Path) -> Subject:
    _clip_base(folder)
    vocabulary = clip_vocabulary(folder, 1000)
    assert vocabulary is not None
    for path in list(folder.iterdir()):
        path.unlink()
    vocabulary.save(folder)
    files = tuple(path.name for path in folder.iterdir())
    return Subject("tokenizer-fast", files, lambda folder: _encoded(clip_vocabulary(folder, 1000)))


def tokenizer_original(folder: Path) -> Subject:
    lines = ["#version", *(f"{a} {b}" for a in "abcdefghij" for b in "klmnopqrst"), "a b</w>"]
    (folder / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    read = lambda folder: _encoded(clip_vocabulary(folder, 1000))  # noqa: E731
    return Subject("tokenizer-original", ("bpe_simple_vocab_16e6.txt.gz",), read)


def tokenizer_bert(folder: Path) -> Subject:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdez", "##b", "##c", "cat"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 77}))
    read = lambda folder: _encoded(bert_vocabulary(folder, 100))  # noqa: E731
    return Subject("tokenizer-bert", ("vocab.txt", "tokenizer_config.json"), read)


def png(folder: Path) -> Subject:
    pipe = tiny_parts.class_pipeline()
    pipe({"label": 1}, steps=1).save(folder / "a.png")

    def read(folder: Path) -> str:
        recipe = read_recipe(folder / "a.png")
        return json.dumps(recipe) + str(read_picture(folder / "a.png").sum())

    return Subject("png", ("a.png",), read)


def pictures(folder: Path) -> Subject:
    for ending in ENDINGS:
        Image.fromarray(SHOWN).save(folder / f"a.{ending}")
    Image.fromarray(SHOWN[..., 0]).save(folder / "map.png")

    def read(folder: Path) -> str:
        # the others are read as well, each time: it costs nothing, and a decoder's state is nobody else's
        shown = [str(read_picture(folder / f"a.{ending}").sum()) for ending in ENDINGS]
        return " ".join([*shown, str(read_label_map(folder / "map.png", "map").sum())])

    return Subject("pictures", (*(f"a.{ending}" for ending in ENDINGS), "map.png"), read)


def _samples(type_: str, **config: Any) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        dataset = open_part(PartSpec(type=type_, config=config), folder, "data.train")
        samples = [dataset[index] for index in range(len(dataset))]
        return str([(sample.id, str(sample.inputs), int(sample.image.sum())) for sample in samples])

    return read


def shards(folder: Path) -> Subject:
    picture = io.BytesIO()
    Image.fromarray(SHOWN).save(picture, "PNG")
    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(2):
            known = {"png": picture.getvalue(), "txt": b"a text", "cls": b"3", "json": b'{"layout": []}'}
            for ending, data in known.items():
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(data)
                info.pax_headers = {"mtime": "1.5", "comment": "known"}
                archive.addfile(info, io.BytesIO(data))
    return Subject("shards", ("a.tar",), _samples("shards", shards="*.tar"))


def folder_metadata(folder: Path) -> Subject:
    (folder / "pictures").mkdir()
    lines = []
    for number in range(3):
        Image.fromarray(SHOWN).save(folder / "pictures" / f"{number}.png")
        box = {"label": "dot", "box": [0.25, 0.25, 0.75, 1]}
        lines.append({"file_name": f"{number}.png", "text": f"colour {number}", "layout": [box]})
    (folder / "pictures" / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return Subject("metadata", ("pictures/metadata.jsonl",), _samples("folder", folder="pictures"))


def coco(folder: Path) -> Subject:
    (folder / "pictures").mkdir()
    Image.fromarray(SHOWN).save(folder / "pictures" / "0.png")
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 20, "height": 24}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 5.5, 6], "iscrowd": 0}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return Subject("coco", ("a.json",), _samples("coco", annotations="a.json", pictures="pictures"))


ROOT = Path(__file__).parents[2]


def training_recipe(folder: Path) -> Subject:
    shutil.copy(ROOT / "examples" / "miniworld" / "model.yaml", folder / "a.yaml")
    return Subject("training-recipe", ("a.yaml",), lambda folder: str(read_training(folder / "a.yaml")))


def original_yaml(folder: Path) -> Subject:
    shutil.copy(ROOT / "tests" / "goldens" / "sd_v1" / "config.yaml", folder / "a.yaml")
    return Subject("original-yaml", ("a.yaml",), lambda folder: str(read_yaml(folder / "a.yaml")))


def training_checkpoint(folder: Path) -> Subject:
    made = checkpoints.Checkpoint(7, {"weights": STATE, "ema": STATE}, {"loss": 0.5})
    checkpoints.write(folder / "runs", made, keep=1)

    def read(folder: Path) -> str:
        (path,) = (folder / "runs").glob("step-*")
        checkpoints.verify(path)
        found = checkpoints.read(path)
        return f"{found.step} {tensors_of_part(dict(found.tensors['weights']))} {found.state}"

    names = ("weights.safetensors", "ema.safetensors", "state.json", "manifest.json")
    files = tuple(f"runs/step-00000007/{name}" for name in names)
    return Subject("training-checkpoint", files, read)


def diffusers_folder(folder: Path) -> Subject:
    sys.path.append(str(ROOT / "tests" / "pipelines"))
    import tiny_diffusers

    tiny_diffusers.saved(tiny_diffusers.stable_diffusion(), folder / "model")
    texts = (path for path in (folder / "model").rglob("*") if path.suffix in (".json", ".txt"))
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in texts))

    def read(folder: Path) -> str:
        pipe = ldmkit.load(folder / "model")
        return pipe.spec.hash + str(pipe.defaults)

    return Subject("diffusers-folder", files, read)


def diffusers_weights(folder: Path) -> Subject:
    import tiny_diffusers

    tiny_diffusers.saved(tiny_diffusers.stable_diffusion(), folder / "model")
    files = tuple(sorted(p.relative_to(folder).as_posix() for p in (folder / "model").rglob("*.safetensors")))

    def read(folder: Path) -> str:
        pipe = ldmkit.load(folder / "model")
        return pipe.spec.hash + "".join(tensors_of_part(part.state_dict()) for part in pipe.parts.items().values())

    return Subject("diffusers-weights", files, read)


def part_folder(folder: Path) -> Subject:
    save_part("codec", tiny_parts.kl_codec(), folder / "codec")
    files = ("codec/codec.json", "codec/codec.safetensors")
    read = lambda folder: tensors_of_part(ldmkit.load_codec(folder / "codec").state_dict())  # noqa: E731
    return Subject("part-folder", files, read, exact=True)


BUILDERS: tuple[Callable[[Path], Subject], ...] = (
    *(saved_weights, saved_spec, spec, safetensors, checkpoint, checkpoint_opened, legacy),
    *(tokenizer_slow, tokenizer_fast, tokenizer_original, tokenizer_bert, png, pictures, shards, folder_metadata, coco),
    *(training_recipe, original_yaml, training_checkpoint, diffusers_folder, diffusers_weights, part_folder),
)  # fmt: skip
