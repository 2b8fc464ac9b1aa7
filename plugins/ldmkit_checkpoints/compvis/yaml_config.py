"""Safe reading of original yaml configs: `model: {target: ..., params: {...}}`."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ldmkit import SourceError, read_file

MAX_YAML_BYTES = 2**20
MAX_ALIASES = 200
MAX_DEPTH = 40
MAX_INTEGER = 2**24
"""Far above any dimension of a published model; a larger one would only exhaust memory."""

LIMITS: dict[str, int] = {
    **dict.fromkeys(("model_channels", "ch", "z_channels", "embed_dim", "context_dim", "in_channels"), 2**16),
    **dict.fromkeys(("out_channels", "out_ch", "channels", "hint_channels", "adm_in_channels", "outdim"), 2**16),
    **dict.fromkeys(("num_res_blocks", "n_stages"), 64),
    **dict.fromkeys(("channel_mult", "ch_mult", "transformer_depth", "n_layer", "max_seq_len"), 1024),
    **dict.fromkeys(("num_heads", "num_head_channels", "timesteps"), 10_000),
}
"""Largest integer accepted for a key that multiplies the size of a model."""

MAX_ITEMS = 64
MAX_NODES = 200_000
"""Limit for the values of a yaml with its aliases expanded."""


class _Loader(yaml.SafeLoader):
    """A loader for standard tags; refuses duplicate and merge keys, and counts expanded aliases."""

    aliases = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > 2 * MAX_DEPTH:
            line = self.peek_event().start_mark.line + 1
            raise SourceError("yaml-invalid", f"nested more than {2 * MAX_DEPTH} deep", where=f"line {line}")
        try:
            return self._composed(parent, index)
        finally:
            self.depth -= 1

    def _composed(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise SourceError(
                    "yaml-aliases", f"more than {MAX_ALIASES} aliases", fits="values with aliases expanded"
                )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                raise SourceError("yaml-invalid", "keys must be scalars", where=f"line {node.start_mark.line + 1}")
            if key.value in seen:
                where = f"line {key.start_mark.line + 1}"
                raise SourceError("duplicate-key", f"duplicate key {key.value!r}", where=where)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# "1e-4" is a string in YAML 1.1, but a number to the software these files were written for
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parsed(text: str) -> Any:
    """Parse a yaml text; aliases are counted as if expanded, before any object is built."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, {}, set())
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], within: set[int]) -> int:
    """Number of nodes in a tree with all aliases expanded."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        return known[id(node)]
    line = f"line {node.start_mark.line + 1}"
    if id(node) in within:
        raise SourceError("yaml-invalid", "recursive alias", where=line)
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(value,) for value in node.value]
    total = 1 + sum(_count(one, known, within | {id(node)}) for pair in pairs for one in pair)
    if total > MAX_NODES:
        what = f"it has more than {MAX_NODES} values with aliases expanded"
        raise SourceError("yaml-aliases", what, where=line, fits="values with aliases expanded")
    known[id(node)] = total
    return total


def read_yaml(path: Path, *, bounded: bool = True) -> dict[str, Any]:
    """Read the mapping in a yaml file of at most 1 MiB.

    Args:
        bounded: refuse implausibly large integers; False for files whose keys are checked one by one.

    Raises:
        SourceError: `not-found`, `too-large`, `yaml-invalid`, `yaml-tag`, `yaml-aliases`, `duplicate-key`,
            `huge-dimension`.
    """
    content = read_file(path, MAX_YAML_BYTES)
    try:
        data = _parsed(content.decode("utf-8-sig"))
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SourceError(
            "yaml-tag", f"{error.problem}", where=f"{path}, line {line}", fits="plain mappings, lists, text, numbers"
        ) from None
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise SourceError("yaml-invalid", f"not valid YAML: {said}", where=str(path)) from None
    except SourceError as error:
        where = f"{path}, {error.where}" if error.where else str(path)
        raise SourceError(error.code.split(".", 1)[1], error.what, where=where, fits=error.fits) from None
    if not isinstance(data, dict):
        raise SourceError("yaml-invalid", f"expected a mapping, got {type(data).__name__}", where=str(path))
    _check(data, "", str(path), set(), set(), bounded)
    return data


def yaml_value(text: str, where: str) -> Any:
    """Parse a YAML value from the command line: a number, a word, `[64, 64]`, `{type: sgd}`.

    Raises:
        SourceError: `yaml-invalid`.
    """
    try:
        return _parsed(text)
    except (yaml.YAMLError, SourceError, RecursionError, ValueError, TypeError) as error:
        problem = " ".join(str(error).split())
        raise SourceError("yaml-invalid", f"{text!r} is not a YAML value: {problem}", where=where) from None


_TRAINING_ONLY = frozenset(["scheduler_config", "data", "lightning"])


def _check(node: Any, path: str, where: str, open_nodes: set[int], done: set[tuple[int, str]], bounded: bool) -> None:
    """Limit integers, list lengths and depth; refuse cycles and non-finite numbers.

    `done` holds the containers already checked, so that nested aliases are walked once.
    """
    name = path.rpartition(".")[2].partition("[")[0]
    if isinstance(node, (dict, list)):
        if id(node) in open_nodes or path.count(".") > MAX_DEPTH:
            raise SourceError("yaml-invalid", "nested too deep, or recursive", where=f"{where}: {path[:200]}")
        if (id(node), name) in done:
            return
        done.add((id(node), name))
        if bounded and isinstance(node, list) and len(node) > MAX_ITEMS and name in LIMITS:
            raise SourceError("huge-dimension", f"a list of {len(node)}", where=f"{where}: {path}")
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            place = f"{path}[{key}]" if isinstance(node, list) else f"{path}.{key}".lstrip(".")
            if key not in _TRAINING_ONLY:
                _check(value, place, where, open_nodes | {id(node)}, done, bounded)
    elif isinstance(node, int) and not isinstance(node, bool):
        if not bounded:
            return
        limit = LIMITS.get(name, MAX_INTEGER)
        if abs(node) > limit and "seed" not in name:
            raise SourceError("huge-dimension", f"{node} is too large", where=f"{where}: {path}", fits=f"up to {limit}")
    elif isinstance(node, float) and not math.isfinite(node):
        raise SourceError("yaml-invalid", f"{node} is not finite", where=f"{where}: {path}")


def section(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return a nested `{target, params}` section.

    Raises:
        SourceError: it is missing or not a mapping.
    """
    value = data.get(key)
    if not isinstance(value, dict) or not isinstance(value.get("target"), str):
        raise SourceError("missing-section", f"{key!r} with a target is required", where=where)
    if not isinstance(value.get("params") or {}, dict):
        raise SourceError("missing-section", "params is not a mapping", where=f"{where}.{key}")
    return value


def params_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a section, possibly empty."""
    return dict(part.get("params") or {})
