"""Parts whose weights are not always on the device: they are fetched while something computes with them."""

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
"""Maximum number of prefetched blocks: with several threads, each thread has a next block."""


class Shelf:
    """The resting tensors of one module, without those of its submodules."""

    def __init__(self, module: nn.Module, resting: dict[tuple[str, str], Resting]) -> None:
        self.module, self.resting = module, resting
        # preserved, because torch chooses other kernels for parameters that require gradients
        self._trainable = {name for (_, name) in resting if getattr(module, name).requires_grad}
        self.users = 0
        self.ready: Any = None
        """On CUDA: the event after which the fetched tensors are complete."""

    def put(self, tensors: dict[tuple[str, str], Tensor]) -> None:
        """Install these tensors in the module."""
        for (table, name), tensor in tensors.items():
            held = nn.Parameter(tensor, requires_grad=name in self._trainable) if table == "_parameters" else tensor
            getattr(self.module, table)[name] = held

    def rest(self) -> None:
        """Install the resting stand-ins in the module."""
        self.put({place: one.shown for place, one in self.resting.items()})


class Fetched(NamedTuple):
    """Tensors of some shelves on the device; `ready`: the event after which a copy on another stream is complete."""

    tensors: list[dict[tuple[str, str], Tensor]]
    ready: Any = None


class Residence:
    """Keeps a part's weights on its device while the part is in use, and at rest otherwise.

    Args:
        shelves: the resting tensors of all its modules.
        device: the computing device.
        free: tensors that stay on the device, by module; `to` moves them.
    """

    def __init__(self, shelves: Sequence[Shelf], device: torch.device, free: Sequence[Shelf] = ()) -> None:
        self.shelves, self.device, self.free = shelves, device, free
        self._lock = threading.RLock()
        self._users = 0
        for shelf in shelves:
            shelf.rest()

    def __reduce__(self) -> Any:
        what = "a placed part can be neither copied nor pickled: it does not hold its weights"
        raise CompositionError("placed", what, fits="the part of the pipeline that it was placed from")

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have the part's weights on the device inside a `with` block."""
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
                    self._released()

    @property
    def held(self) -> Sequence[Shelf]:
        """The shelves that are on the device as long as any block of the part computes."""
        return self.shelves

    def _released(self) -> None:
        """Called when the last user of the part is done."""

    def take(self, shelves: Sequence[Shelf], fetched: Fetched | None = None) -> None:
        """Have the tensors of some shelves on the device, until `leave` has been called as often."""
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
        """Fetch the tensors of some shelves; a tensor in several places is fetched once."""
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
        """Compute on another device from now on. The part must not be in use (`busy.moving`)."""
        self.device = device
        for shelf in self.free:
            for table, name in shelf.resting:
                held = getattr(shelf.module, table)
                shelf.put({(table, name): held[name].detach().to(device)})

    def check_idle(self) -> None:
        """Refuse to copy a part whose weights are in use, or are stored as integers.

        Raises:
            RunError: `busy`; CompositionError: `placed-rounded`.
        """
        if self._users:
            raise RunError("busy", "a run is using a placed part", where="placed", fits="wait for its end")
        if any(one.shown.is_meta for shelf in self.shelves for one in shelf.resting.values()):
            fits = "the pipeline that this one was placed from"
            raise CompositionError("placed-rounded", "a part is stored as int8", where="placement", fits=fits)

    def bare(self, part: Part) -> None:
        """Remove the fetching hooks from a copy of the part, which holds the resting tensors directly."""
        part.placed = None
        for inner in part.modules():
            for hooks in (inner._forward_pre_hooks, inner._forward_hooks):
                for key in [key for key, hook in hooks.items() if is_fetching(hook)]:
                    del hooks[key]
                    inner._forward_hooks_always_called.pop(key, None)


class Streamed(Residence):
    """Keeps each block's weights on the device only during that block's call.

    While a block computes, the weights of the block that followed it last time are prefetched by another thread, on
    CUDA with copies on a separate stream.

    Args:
        blocks: modules, each with the shelves of its contents.
        edges: shelves outside all blocks, on the device while any of the part computes.
        ahead: prefetch the next block; False if the weights are already on the device and only dequantised.
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
            for shelf in shelves:  # `Denoiser.prepare` may call layers without calling the blocks that contain them
                if shelf.module is not module:
                    Block(self, [shelf], whole=False).watch(shelf.module)

    @property
    def held(self) -> Sequence[Shelf]:
        return self._edges

    def _released(self) -> None:
        running = [future for future in self._ahead.values() if not future.cancel()]
        self._ahead.clear()
        wait(running)  # what they fetch occupies memory until they finish

    def enter(self, block: Block) -> None:
        """Called before a block: make its weights available, and prefetch the next block's."""
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
        """Called after a block, also if it failed; ignored if the block was not entered."""
        if self._entered and self._entered[-1] is block:
            self._entered.pop()
            self.leave(block.shelves)

    @property
    def _entered(self) -> list[Block]:
        """Blocks that this thread is executing, outermost first."""
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
    """Owner of a placed module's hooks."""

    def __init__(self, owner: Streamed, shelves: Sequence[Shelf], *, whole: bool) -> None:
        self.owner, self.shelves, self.whole = owner, shelves, whole

    def __deepcopy__(self, memo: dict[int, Any]) -> Block:
        return self

    def watch(self, module: nn.Module) -> None:
        """Register hooks that fetch the weights for each call of a module and release them, also if it fails."""
        module.register_forward_pre_hook(self.before)
        module.register_forward_hook(self.after, always_call=True)

    def before(self, module: nn.Module, inputs: Any) -> None:
        self.owner.enter(self)

    def after(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self.owner.exit(self)


@dataclass(frozen=True)
class Placed:
    """Placement state of a part: the residence of its weights, and its dtype once they are fetched."""

    home: Residence
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """The computing device."""
        return self.home.device


def home_of(part: Part) -> Residence | None:
    """The residence of a part's weights; None if they are always on its device."""
    return part.placed.home if isinstance(part.placed, Placed) else None


def is_fetching(hook: object) -> bool:
    """Whether a module's hook only fetches weights for a placement, without changing results."""
    return isinstance(getattr(hook, "__self__", None), Block)


@contextmanager
def in_use(parts: Iterable[Part]) -> Iterator[None]:
    """Have the weights of placed parts on the device inside a `with` block."""
    with ExitStack() as stack:
        for part in parts:
            if (home := home_of(part)) is not None:
                stack.enter_context(home.used())
        yield


def _wait(shelves: Sequence[Shelf], new: Sequence[Shelf], ready: Any, device: torch.device) -> None:
    """Have the current stream wait for copies on other streams, and keep the memory until it has used them."""
    stream = torch.cuda.current_stream(device)
    ready = ready or stream.record_event()
    for shelf in new:
        shelf.ready = ready
    for shelf in shelves:
        stream.wait_event(shelf.ready)
        for table, name in shelf.resting:
            getattr(shelf.module, table)[name].record_stream(stream)
