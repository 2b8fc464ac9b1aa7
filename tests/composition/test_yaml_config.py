"""Original yaml configs: what is read, and what is refused with which code."""

from __future__ import annotations

from pathlib import Path

import pytest
from ldmkit_checkpoints.compvis.yaml_config import read_yaml, yaml_value

import ldmkit

GOLDENS = Path(__file__).parents[1] / "goldens"


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_numbers_are_read_as_the_original_software_reads_them(tmp_path: Path) -> None:
    read = read_yaml(write(tmp_path, "a: 1e-4\nb: 4.5e-06\nc: 1.0e-04\nd: 12\ne: 3.\nf: '1e-4'\ng: 1e4x\n"))
    assert read == {"a": 1e-4, "b": 4.5e-06, "c": 1e-4, "d": 12, "e": 3.0, "f": "1e-4", "g": "1e4x"}


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("*/config*.yaml")), ids=lambda path: path.parent.name)
def test_published_configs_are_read(path: Path) -> None:
    assert "target" in read_yaml(path)["model"]


def doubling(levels: int) -> str:
    lines = ["a0: &a0 [1, 1]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("bounded", [True, False])
def test_aliases_of_aliases_are_counted_before_anything_is_made_of_them(tmp_path: Path, bounded: bool) -> None:
    assert read_yaml(write(tmp_path, doubling(5)), bounded=bounded)["a0"] == [1, 1]
    with pytest.raises(
        ldmkit.SourceError, match="aliases expanded"
    ) as caught:  # astronomically many values in a few lines
        read_yaml(write(tmp_path, doubling(40)), bounded=bounded)
    assert caught.value.code == "source.yaml-aliases"
    with pytest.raises(ldmkit.SourceError, match="aliases expanded"):
        yaml_value(
            "{a: &a [1, 1, 1, 1, 1, 1, 1, 1], b: &b [*a, *a, *a, *a, *a, *a, *a, *a], "
            "c: &c [*b, *b, *b, *b, *b, *b, *b, *b], d: &d [*c, *c, *c, *c, *c, *c, *c, *c], "
            "e: &e [*d, *d, *d, *d, *d, *d, *d, *d], f: [*e, *e, *e, *e, *e, *e, *e, *e]}",
            "--set",
        )


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("a: !!python/object/apply:os.system ['true']", "yaml-tag", "os.system"),
        ("a: !!python/name:os.system", "yaml-tag", "os.system"),
        ("a: !custom 1", "yaml-tag", "custom"),
        ("a: 1\nb: 2\na: 3", "duplicate-key", "'a'"),
        ("m: {x: 1, x: 2}", "duplicate-key", "'x'"),
        ("a: &x {b: 1}\nc: {<<: *x}", "yaml-invalid", "line 2"),
        ("? [1, 2]\n: 3", "yaml-invalid", "scalars"),
        ("a: &a [*a]", "yaml-invalid", "recursive"),
        ("[" * 5000, "yaml-invalid", "deep"),
        ("a: [1, 2", "yaml-invalid", "not valid YAML"),
        ("a: *nowhere", "yaml-invalid", "nowhere"),
        ("- 1", "yaml-invalid", "mapping"),
        ("", "yaml-invalid", "mapping"),
        ("a: 1\n---\nb: 2", "yaml-invalid", "document"),
        ("a: .inf", "yaml-invalid", "inf"),
        ("a: .nan", "yaml-invalid", "nan"),
        (doubling(60), "yaml-aliases", "200"),
        ("model_channels: 99999999", "huge-dimension", "model_channels"),
        ("num_res_blocks: 65", "huge-dimension", "num_res_blocks"),
        ("ch_mult: [1, 2, 99999]", "huge-dimension", "ch_mult[2]"),
        ("channel_mult: [" + "1, " * 70 + "1]", "huge-dimension", "71"),
        ("anything: 99999999999", "huge-dimension", "anything"),
        ("a: -99999999999", "huge-dimension", "-99999999999"),
        ("#" + " " * 2**20, "too-large", "config"),
        ("a: \x00", "yaml-invalid", "not valid YAML"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, code: str, words: str) -> None:
    with pytest.raises(ldmkit.SourceError) as caught:
        read_yaml(write(tmp_path, text))
    assert caught.value.code == f"source.{code}"
    assert words in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ldmkit.SourceError) as caught:
        read_yaml(path)
    assert caught.value.code == "source.yaml-invalid"
