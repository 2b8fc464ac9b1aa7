"""Parts whose weights are not always there: fetched for as long as something computes with them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ldmkit.contracts.part import Part
from ldmkit.errors import CompositionError, RunError
from ldmkit.models.resting import Resting

AHEAD = 2
"""Blocks that are fetched before their call, at most: with several threads each has a next one."""


class Shelf:
    """The tensors of one module that rest, without those of modules inside."""

    def __init__(self, module: nn.Module, resting: dict[tuple[str, str], Resting]) -> None:
        self.module, self.resting = module, resting
        # kept, for torch chooses other kernels where a gradient may be asked for
        self._asking = {name for (_, name) in resting if getattr(module, name).requires_grad}
        self.users = 0
        self.ready: Any = None
        """On CUDA: when the tensors that are there are whole."""

    def put(self, tensors: dict[tuple[str, str], Tensor]) -> None:
        """Have the module compute with these."""
        for (table, name), tensor in tensors.items():
            held = nn.Parameter(tensor, requires_grad=name in self._asking) if table == "_parameters" else tensor
            getattr(self.module, table)[name] = held

    def rest(self) -> None:
        """Have the module hold what shows where its tensors are."""
        self.put({place: one.shown for place, one in self.resting.items()})


class Fetched(NamedTuple):
    """Tensors of some shelves on the device; `ready`: when a copy on another stream is done."""

    tensors: list[dict[tuple[str, str], Tensor]]
    ready: Any = None


class Residence:
    """Where a part's weights are: on its device for as long as somebody uses it, else at rest.

    Args:
        shelves: of all its modules.
        device: that computes.
        free: what stays on the device, by module; moved with it.
    """

    def __init__(self, shelves: Sequence[Shelf], device: torch.device, free: Sequence[Shelf] = ()) -> None:
        self.shelves, self.device, self.free = shelves, device, free
        self._lock = threading.RLock()
        self._users = 0
        for shelf in shelves:
            shelf.rest()

    def __reduce__(self) -> Any:
        what = "a placed part can be neither copied nor pickled: its weights are not in it"
        raise CompositionError("placed", what, fits="the part of the pipeline that it was placed from")

    @contextmanager
    def used(self) -> Iterator[None]:
        """A block that computes with the part."""
        with self._lock:
            self._users += 1
        try:
            held = self.held
            self.take(held)
            try:
                yield
            finally:
                self.leave(held)
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._left()

    @property
    def held(self) -> Sequence[Shelf]:
        """What is there as long as anything of the part computes."""
        return self.shelves

    def _left(self) -> None:
        """Nobody uses the part any more."""

    def take(self, shelves: Sequence[Shelf], fetched: Fetched | None = None) -> None:
        """Have the tensors of some shelves on the device, until as many calls of `leave`."""
        with self._lock:
            missing = [shelf for shelf in shelves if not shelf.users]
            if fetched is None or len(missing) < len(shelves):
                fetched = self.fetch(missing)
            for shelf, tensors in zip(missing, fetched.tensors, strict=True):
                shelf.put(tensors)
            if self.device.type == "cuda":
                _wait(shelves, missing, fetched.ready, self.device)
            for shelf in shelves:
                shelf.users += 1

    def leave(self, shelves: Sequence[Shelf]) -> None:
        """Undo one `take`."""
        with self._lock:
            for shelf in shelves:
                shelf.users -= 1
                if not shelf.users:
                    shelf.rest()

    def fetch(self, shelves: Sequence[Shelf]) -> Fetched:
        """The tensors of some shelves; one that stands in several places is fetched once."""
        done: dict[int, Tensor] = {}
        made: list[dict[tuple[str, str], Tensor]] = []
        with torch.no_grad():
            for shelf in shelves:
                for one in shelf.resting.values():
                    if id(one) not in done:
                        done[id(one)] = one.fetched(self.device)
                made.append({place: done[id(one)] for place, one in shelf.resting.items()})
        return Fetched(made)

    def to(self, device: torch.device) -> None:
        """Compute on another device from now on. Nothing may be using the part (`busy.moving`)."""
        self.device = device
        for shelf in self.free:
            for table, name in shelf.resting:
                held = getattr(shelf.module, table)
                shelf.put({(table, name): held[name].detach().to(device)})

    def check_idle(self) -> None:
        """Refuse to copy a part whose weights are fetched just now, or were rounded to integers.

        Raises:
            RunError: `busy`; CompositionError: `placed-rounded`.
        """
        if self._users:
            raise RunError("busy", "a run is using a placed part", where="placed", fits="wait for its end")
        if any(one.shown.is_meta for shelf in self.shelves for one in shelf.resting.values()):
            fits = "the pipeline that this one was placed from"
            raise CompositionError("placed-rounded", "a placement keeps a part in int8", where="placement", fits=fits)

    def bare(self, part: Part) -> None:
        """Take what fetches the weights off a copy of the part, which holds the resting tensors themselves."""
        part.placed = None
        for inner in part.modules():
            for hooks in (inner._forward_pre_hooks, inner._forward_hooks):
                for key in [key for key, hook in hooks.items() if is_fetching(hook)]:
                    del hooks[key]
                    inner._forward_hooks_always_called.pop(key, None)


class Streamed(Residence):
    """A part of which each block's weights are on the device for that block's call alone.

    While a block computes, those of the block that followed it the last time are fetched: by another thread, on CUDA by
    copies on a stream of their own.

    Args:
        blocks: modules, each with the shelves of what is inside.
        edges: of what is in no block, there while anything of the part computes.
        ahead: fetch the next block meanwhile; False where the weights are on the device already, and are only widened.
    """

    def __init__(
        self,
        blocks: Iterable[tuple[nn.Module, Sequence[Shelf]]],
        edges: Sequence[Shelf],
        device: torch.device,
        free: Sequence[Shelf] = (),
        *,
        ahead: bool = True,
    ) -> None:
        own = list(blocks)
        super().__init__([*(shelf for _, shelves in own for shelf in shelves), *edges], device, free)
        self._edges = edges
        self._ahead: OrderedDict[Block, Future[Fetched]] = OrderedDict()
        self._following: dict[Block, Block] = {}
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ldmkit-weights") if ahead else None
        self._stream: Any = None
        for module, shelves in own:
            Block(self, shelves, whole=True).watch(module)
            for shelf in shelves:  # `prepare` calls layers, not the blocks that they are in
                if shelf.module is not module:
                    Block(self, [shelf], whole=False).watch(shelf.module)

    @property
    def held(self) -> Sequence[Shelf]:
        return self._edges

    def _left(self) -> None:
        running = [future for future in self._ahead.values() if not future.cancel()]
        self._ahead.clear()
        wait(running)  # what they fetch is in memory until they are through

    def enter(self, block: Block) -> None:
        """A block is called: have its weights, and ask for the next one's."""
        with self._lock:
            waiting = self._ahead.pop(block, None)
            self.take(block.shelves, None if waiting is None else waiting.result())
            self._entered.append(block)
            if not block.whole or self._pool is None:
                return
            last, self._local.last = getattr(self._local, "last", None), block
            if last is not None:
                self._following[last] = block
            following = self._following.get(block)
            if self._users and following is not None and following not in self._ahead:
                while len(self._ahead) >= AHEAD:
                    self._ahead.popitem(last=False)[1].cancel()
                self._ahead[following] = self._pool.submit(self._fetch_aside, following.shelves)

    def exit(self, block: Block) -> None:
        """A block's call ended, well or not; one that did not begin is passed over."""
        if self._entered and self._entered[-1] is block:
            self._entered.pop()
            self.leave(block.shelves)

    @property
    def _entered(self) -> list[Block]:
        """Blocks that this thread is in."""
        found: list[Block] | None = getattr(self._local, "entered", None)
        if found is None:
            found = self._local.entered = []
        return found

    def _fetch_aside(self, shelves: Sequence[Shelf]) -> Fetched:
        if self.device.type != "cuda":
            return self.fetch(shelves)
        if self._stream is None or self._stream.device != self.device:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            tensors = self.fetch(shelves).tensors
            return Fetched(tensors, self._stream.record_event())


class Block:
    """What a placed module's hooks are bound to."""

    def __init__(self, owner: Streamed, shelves: Sequence[Shelf], *, whole: bool) -> None:
        self.owner, self.shelves, self.whole = owner, shelves, whole

    def __deepcopy__(self, memo: dict[int, Any]) -> Block:
        return self

    def watch(self, module: nn.Module) -> None:
        """Have the weights there for each call of a module, also where it fails."""
        module.register_forward_pre_hook(self.before)
        module.register_forward_hook(self.after, always_call=True)

    def before(self, module: nn.Module, inputs: Any) -> None:
        self.owner.enter(self)

    def after(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self.owner.exit(self)


@dataclass(frozen=True)
class Placed:
    """What a placed part knows: where its weights are, and the dtype that it has when they are there."""

    home: Residence
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """The one that computes."""
        return self.home.device


def home_of(part: Part) -> Residence | None:
    """Where a part's weights are, if they are not always on its device."""
    return part.placed.home if isinstance(part.placed, Placed) else None


def is_fetching(hook: object) -> bool:
    """Whether a module's hook is a placement's: it fetches weights, and changes nothing that is computed."""
    return isinstance(getattr(hook, "__self__", None), Block)


@contextmanager
def in_use(parts: Iterable[Part]) -> Iterator[None]:
    """Have the weights of parts on the device, where these are not always there."""
    with ExitStack() as stack:
        for part in parts:
            if (home := home_of(part)) is not None:
                stack.enter_context(home.used())
        yield


def _wait(shelves: Sequence[Shelf], new: Sequence[Shelf], ready: Any, device: torch.device) -> None:
    """Have the current stream wait for what other streams copy, and the memory kept until it is through with it."""
    stream = torch.cuda.current_stream(device)
    ready = ready or stream.record_event()
    for shelf in new:
        shelf.ready = ready
    for shelf in shelves:
        stream.wait_event(shelf.ready)
        for table, name in shelf.resting:
            getattr(shelf.module, table)[name].record_stream(stream)
