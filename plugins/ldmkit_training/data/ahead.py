"""Prefetching in a thread or in worker processes; results are the same, in the same order."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ldmkit import RunError

K = TypeVar("K")
T = TypeVar("T")

DEPTH = 2
"""Results that wait to be used, for each worker."""


def ahead(fetch: Callable[[K], T], keys: Iterable[K], workers: int) -> Generator[T]:
    """`fetch(key)` for each key, in order, computed ahead of its use.

    Args:
        fetch: picklable where there are workers, and without random state. It should return errors, not raise them:
            exceptions lose their type on the way from a process.
        workers: processes; 0: one thread.

    Raises:
        RunError: `worker-died`: killed, or out of memory.
    """
    return _processes(fetch, keys, workers) if workers else _thread(fetch, keys)


def _thread(fetch: Callable[[K], T], keys: Iterable[K]) -> Generator[T]:
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(DEPTH)
    stop = threading.Event()

    def put(item: tuple[T | None, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for key in keys:
                if not put((fetch(key), None)):
                    return
            put((None, StopIteration()))
        except BaseException as problem:  # raised again where the results are used
            put((None, problem))

    thread = threading.Thread(target=work, name="ldmkit-data", daemon=True)
    thread.start()
    try:
        while True:
            result, problem = ready.get()
            if isinstance(problem, StopIteration):
                return
            if problem is not None:
                raise problem
            yield cast(T, result)
    finally:
        stop.set()
        thread.join()


class _Fetched(TorchDataset[Any], Generic[K, T]):
    def __init__(self, fetch: Callable[[K], T]) -> None:
        self.fetch = fetch

    def __getitem__(self, key: K) -> T:
        return self.fetch(key)


def _own_signals(_worker: int) -> None:
    # Ctrl-C reaches the whole group: the training process decides what follows, and its handlers are not for workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _unchanged(result: T) -> T:
    return result


def _processes(fetch: Callable[[K], T], keys: Iterable[K], workers: int) -> Generator[T]:
    loader = DataLoader(
        _Fetched(fetch),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        prefetch_factor=DEPTH,
        collate_fn=_unchanged,
        worker_init_fn=_own_signals,
        generator=torch.Generator(),  # its own, or it would draw a seed from torch's global one
    )
    try:
        yield from loader
    except RuntimeError as problem:
        if "DataLoader worker" not in str(problem):
            raise
        what = f"a process that reads data ended: {str(problem).splitlines()[0]}"
        raise RunError("worker-died", what, where="data.workers", fits="fewer workers, or 0") from problem
