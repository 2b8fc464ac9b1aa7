"""A pickle interpreter for torch files that builds only tensors and plain containers, and executes no code.

Globals are looked up in a fixed table and never imported; calls are limited to the rebuild functions below. Anything
else a pickle asks for is an error that names it.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ldmkit import SourceError

CONVERT = (
    "only tensors and plain containers are read. To read a file that you trust, convert it once with the software that "
    "wrote it: torch.save({'state_dict': checkpoint['state_dict']}, new_path)"
)

STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip

MAX_AXES = 64
"""Limit for the dimensions of a tensor, and for the items of a tuple used as a key."""

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


class Global(NamedTuple):
    """An allowed global named by the pickle; `what` selects its rebuild rule."""

    name: str
    what: str
    dtype: torch.dtype | None = None


class Storage(NamedTuple):
    """A storage in the file: zip entry `data/<key>`, `numel` elements of `dtype`."""

    key: str
    dtype: torch.dtype
    numel: int


class Stored(NamedTuple):
    """A tensor in the file: a view into a storage, checked to lie within it. Offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _allowed() -> dict[str, Global]:
    rules = {
        "collections.OrderedDict": "dict",
        "torch._utils._rebuild_tensor_v2": "tensor",
        "torch._utils._rebuild_parameter": "parameter",
        "torch.Size": "tuple",
        "torch.storage.UntypedStorage": "storage",
        "builtins.set": "set",
        "torch.nn.modules.container.ParameterDict": "parameters",
        "_codecs.encode": "bytes",
    }
    table = {name: Global(name, what, torch.uint8) for name, what in rules.items()}
    for storage, dtype in STORAGES.items():
        for module in ("torch", "torch.storage"):
            table[f"{module}.{storage}"] = Global(f"{module}.{storage}", "storage", dtype)
    for dtype_name in DTYPES:
        table[f"torch.{dtype_name}"] = Global(f"torch.{dtype_name}", "dtype", getattr(torch, dtype_name))
    return table


ALLOWED = _allowed()


class Parameters(OrderedDict[Any, Any]):
    """The parameters of a `torch.nn.ParameterDict`, as which A1111 keeps the vectors of an embedding."""


class _Mark:
    pass


MARK = _Mark()


@dataclass
class _Machine:
    where: str
    stack: list[Any]
    memo: dict[int, Any]
    copies: int
    """How many more items calls may copy; bounded since a memoised container can be copied again and again."""

    def fail(self, what: str) -> SourceError:
        return SourceError("pickle-invalid", what, where=self.where)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise self.fail("the pickle pops from an empty stack")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise self.fail(f"the pickle adds items to something that is no {kind.__name__}")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise self.fail("the pickle pops a mark that was never set")

    def copying(self, items: Any) -> Any:
        self.copies -= len(items)
        if self.copies < 0:
            raise self.fail("the pickle copies its own items without bound")
        return items

    def set_items(self, target: dict[Any, Any], items: list[Any]) -> None:
        if len(items) % 2:
            raise self.fail("a dictionary with a key but no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not _is_key(key):
                raise self.fail(f"a dictionary key of type {type(key).__name__}")
            if isinstance(key, str) and key in target:
                raise SourceError("duplicate-key", f"duplicate key {key!r}", where=self.where)
            target[key] = value

    def lookup(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.fail("a global whose name is not a string")
        # protocol 2, which torch writes, uses Python 2's module names
        path = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if path not in ALLOWED:
            raise SourceError("pickle-global", f"the pickle asks for {path}", where=self.where, fits=CONVERT)
        return ALLOWED[path]

    def call(self, target: object, args: object) -> Any:
        if not isinstance(target, Global) or not isinstance(args, tuple):
            raise self.fail("the pickle calls something that is not callable")
        if target.what == "dict":
            return self.ordered(args)
        if target.what == "parameters" and not args:
            return Parameters()
        if target.what == "tensor":
            return self.tensor(args)
        if target.what == "parameter" and args and isinstance(args[0], Stored):
            return args[0]
        if target.what == "bytes" and len(args) == 2 and isinstance(args[0], str) and args[1] == "latin1":
            return self.copying(args[0]).encode("latin1")
        if target.what in ("tuple", "set") and len(args) == 1 and isinstance(args[0], (tuple, list)):
            items = self.copying(args[0])
            if target.what == "set" and not all(map(_is_key, items)):
                raise self.fail("a set with unhashable items")
            return tuple(items) if target.what == "tuple" else set(items)
        raise self.fail(f"{target.name} is called with wrong arguments")

    def ordered(self, args: tuple[Any, ...]) -> OrderedDict[Any, Any]:
        made: OrderedDict[Any, Any] = OrderedDict()
        pairs = args[0] if len(args) == 1 and isinstance(args[0], list) else ()
        if args and not isinstance(args[0], list):
            raise self.fail("an OrderedDict built from something other than a list of pairs")
        for pair in self.copying(pairs):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise self.fail("an OrderedDict built from items that are not pairs")
            self.set_items(made, list(pair))
        return made

    def tensor(self, args: tuple[Any, ...]) -> Stored:
        if len(args) < 4 or not isinstance(args[0], Storage):
            raise self.fail("a tensor without a storage")
        storage, offset, shape, stride = args[:4]
        if isinstance(shape, tuple) and len(shape) > MAX_AXES:
            raise self.fail(f"a tensor of {len(shape)} axes")
        sizes = (offset, *shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
        if any(type(n) is not int or n < 0 or n >= 2**62 for n in sizes) or len(shape) != len(stride):
            raise self.fail("a tensor whose size, stride or offset is not a list of non-negative integers")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if 0 not in shape and last >= storage.numel:
            what = f"a tensor of shape {list(shape)} ends at element {last} of a storage of {storage.numel}"
            raise SourceError("storage-range", what, where=self.where)
        return Stored(storage, offset, shape, stride)

    def persistent(self, pid: object) -> Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise self.fail("an unknown kind of persistent object")
        _, kind, key, _, numel = pid
        if not isinstance(kind, Global) or kind.what != "storage" or kind.dtype is None:
            raise self.fail("a storage of unknown type")
        if not isinstance(key, str) or type(numel) is not int or not 0 <= numel < 2**62:
            raise self.fail("a storage without a name or a size")
        return Storage(key, kind.dtype, numel)

    def build(self) -> None:
        state = self.pop()
        target = self.top(object)
        if not isinstance(target, OrderedDict) or not isinstance(state, dict):
            raise self.fail("the pickle sets attributes on an object without attributes")
        if isinstance(target, Parameters) and isinstance(own := state.get("_parameters"), dict):
            self.set_items(target, [item for pair in self.copying(own.items()) for item in pair])
        # otherwise metadata of a state dict, not needed for its tensors


def _is_key(item: object) -> bool:
    """Whether an item may be a dictionary key. Nested tuples may not: hashing a few levels takes forever."""
    flat = item if type(item) is tuple else (item,)
    return len(flat) <= MAX_AXES and all(isinstance(i, (str, int, float, bytes, type(None))) for i in flat)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: MARK,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set,
}  # fmt: skip

_ARGUMENTS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"),
    )
)


def _put(m: _Machine, slot: int) -> None:
    m.memo[slot] = m.top(object)


def _get(m: _Machine, slot: int) -> None:
    if slot not in m.memo:
        raise m.fail("the pickle reads a memo entry that was never stored")
    m.stack.append(m.memo[slot])


def _global(m: _Machine, arg: str) -> None:
    module, _, name = arg.partition(" ")
    m.stack.append(m.lookup(module, name))


def _stack_global(m: _Machine, _: object) -> None:
    name, module = m.pop(), m.pop()
    m.stack.append(m.lookup(module, name))


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def run(m: _Machine, _: object) -> None:
        m.stack.append(tuple(reversed([m.pop() for _ in range(count)])))

    return run


def _call(m: _Machine, _: object) -> None:
    args, target = m.pop(), m.pop()
    m.stack.append(m.call(target, args))


def _set_item(m: _Machine, _: object) -> None:
    value, key = m.pop(), m.pop()
    m.set_items(m.top(dict), [key, value])


def _set_items(m: _Machine, _: object) -> None:
    items = m.since_mark()
    m.set_items(m.top(dict), items)


def _append(m: _Machine, _: object) -> None:
    item = m.pop()
    m.top(list).append(item)


def _appends(m: _Machine, _: object) -> None:
    items = m.since_mark()
    m.top(list).extend(items)


def _dict(m: _Machine, _: object) -> None:
    made: dict[Any, Any] = {}
    m.set_items(made, m.since_mark())
    m.stack.append(made)


_RULES: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, arg: None,
    "FRAME": lambda m, arg: None,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda m, arg: _put(m, len(m.memo)),
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "TUPLE": lambda m, arg: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda m, arg: m.stack.append(m.since_mark()),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "BUILD": lambda m, arg: m.build(),
    "BINPERSID": lambda m, arg: m.stack.append(m.persistent(m.pop())),
}


def read_pickle(data: bytes, where: str) -> Any:
    """Return the object in a pickle: dicts, lists, tuples, sets, strings, bytes, numbers and `Stored` tensors.

    Raises:
        SourceError: `pickle-global` naming what the pickle asked for, `pickle-opcode`, `pickle-invalid`,
            `duplicate-key`, `storage-range`.
    """
    machine = _Machine(where, [], {}, len(data))
    try:
        for opcode, arg, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _finish(machine)
            if opcode.name in _ARGUMENTS:
                machine.stack.append(arg)
            elif opcode.name in _CONSTANTS:
                machine.stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _RULES:
                _RULES[opcode.name](machine, arg)
            elif opcode.name in ("INST", "EXT1", "EXT2", "EXT4"):
                raise SourceError("pickle-global", f"the pickle asks for {arg}", where=where, fits=CONVERT)
            else:
                raise SourceError("pickle-opcode", f"the pickle uses {opcode.name}", where=where, fits=CONVERT)
    except (ValueError, IndexError, UnicodeError, OverflowError, RecursionError) as error:
        raise machine.fail(f"not a valid pickle: {error}") from None
    raise machine.fail("the pickle has no STOP opcode")


def _finish(machine: _Machine) -> Any:
    result = machine.pop()
    if machine.stack:
        raise machine.fail("the pickle leaves items on its stack")
    return result
