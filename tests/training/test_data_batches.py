"""Batches depend on seed and step alone: not on where a run started, on processes, on workers."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch
from data_sources import Squares, section
from ldmkit_training.data.ahead import ahead
from ldmkit_training.data.batches import Batches, validation_batches
from ldmkit_training.data.order import place

from ldmkit import Batch, Draws
from ldmkit.errors import InputError, RunError, SpecError

RANDOM = {"fit": "random-crop", "mirror": 0.5}


def same(a: Batch, b: Batch) -> bool:
    assert a.images is not None and b.images is not None
    return a.ids == b.ids and torch.equal(a.images, b.images) and str(a.inputs) == str(b.inputs) and a.draws == b.draws


def test_a_batch_by_hand() -> None:
    [batch] = Batches(Squares(), section(), seed=5).at(3)
    assert batch.images is not None and batch.images.shape == (4, 3, 16, 16) and batch.images.dtype == torch.float32
    assert batch.latents is None and batch.deviation is None and batch.size == (16, 16)
    assert batch.draws == Draws(5, 3, (0, 1, 2, 3))
    for name, inputs in zip(batch.ids, batch.inputs, strict=True):
        odd = int(name.removesuffix(".png")) % 2 == 1
        assert ("text" in inputs) == odd, "an input that a sample lacks stays absent"


def test_pixels_are_levels_in_minus_one_to_one() -> None:
    data = Squares(1, (16, 16))
    [batch] = Batches(data, section(batch=1), seed=0).at(0)
    assert batch.images is not None
    levels = (batch.images[0].permute(1, 2, 0) + 1) * 127.5
    torch.testing.assert_close(levels, torch.from_numpy(data[0].image).float(), atol=1e-4, rtol=0)


def test_every_epoch_has_each_sample_once_in_an_order_of_its_own() -> None:
    epochs = [[place(3, 10, 10 * epoch + i) for i in range(10)] for epoch in range(4)]
    for number, epoch in enumerate(epochs):
        assert sorted(index for _, index in epoch) == list(range(10)) and {e for e, _ in epoch} == {number}
    assert len({tuple(index for _, index in epoch) for epoch in epochs}) == 4
    assert [place(4, 10, i) for i in range(10)] != epochs[0]


@pytest.mark.parametrize("count", [3, 10])
def test_batches_run_over_epochs_and_may_be_larger(count: int) -> None:
    """Steps of four from ten or three samples: sixty rows have each sample equally often."""
    batches = Batches(Squares(count), section(), seed=1)
    met = Counter(name for _, [batch] in islice(batches.steps(0), 15) for name in batch.ids)
    assert set(met.values()) == {60 // count}


def test_a_step_is_the_same_wherever_a_run_starts() -> None:
    batches = Batches(Squares(), section(**RANDOM), seed=2)
    unbroken = [parts for _, parts in islice(batches.steps(0), 8)]
    resumed = list(islice(Batches(Squares(), section(**RANDOM), seed=2).steps(5), 3))
    assert [step for step, _ in resumed] == [5, 6, 7]
    assert all(same(a[0], b[0]) for a, (_, b) in zip(unbroken[5:], resumed, strict=True))
    assert not same(unbroken[5][0], Batches(Squares(), section(**RANDOM), seed=3).at(5)[0])


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_processes_and_parts_share_out_one_batch(world: int, accumulate: int) -> None:
    whole = Batches(Squares(), section(**RANDOM), seed=2).at(7)[0]
    rows: dict[int, Any] = {}
    for rank in range(world):
        parts = Batches(Squares(), section(**RANDOM), seed=2, rank=rank, world=world, accumulate=accumulate).at(7)
        assert len(parts) == accumulate
        for part in parts:
            assert part.images is not None
            rows |= {row: (part.ids[i], part.images[i]) for i, row in enumerate(part.draws.rows)}
    assert whole.images is not None and sorted(rows) == [0, 1, 2, 3]
    assert tuple(rows[i][0] for i in range(4)) == whole.ids
    assert torch.equal(torch.stack([rows[i][1] for i in range(4)]), whole.images)


def test_views_change_with_the_epoch() -> None:
    batches = Batches(Squares(4), section(**RANDOM), seed=2)
    first, second = (dict(zip(b.ids, b.images, strict=True)) for b in (batches.at(0)[0], batches.at(1)[0]))  # type: ignore[arg-type]
    assert first.keys() == second.keys()
    assert all(not torch.equal(first[name], second[name]) for name in first)


def test_workers_change_nothing() -> None:
    by_thread = list(islice(Batches(Squares(), section(**RANDOM), seed=2, accumulate=2).steps(3), 3))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    batches = Batches(Squares(), section(**RANDOM, workers=2), seed=2, accumulate=2)
    by_workers = list(islice(batches.steps(3), 3))
    assert torch.equal(before, torch.random.get_rng_state()), "reading draws nothing from torch's global generator"
    for (step, parts), (other, others) in zip(by_thread, by_workers, strict=True):
        assert step == other and all(same(a, b) for a, b in zip(parts, others, strict=True))


def test_a_batch_that_does_not_divide_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"a batch of 4 cannot be shared out to 3 process\(es\) in 1 part") as caught:
        Batches(Squares(), section(), seed=0, world=3)
    assert caught.value.where == "data.batch"


def test_inputs_are_renamed_and_filtered() -> None:
    batches = Batches(Squares(), section(inputs={"text": "caption"}), seed=0, names=frozenset({"caption", "layout"}))
    keys = {key for inputs in batches.at(0)[0].inputs for key in inputs}
    assert keys == {"caption", "layout"}
    with pytest.raises(SpecError, match="'text' and 'semantic' would both be 'semantic'"):
        Batches(Squares(), section(inputs={"text": "semantic"}), seed=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_stops(workers: int) -> None:
    batches = Batches(Squares(4, broken=frozenset({2})), section(workers=workers), seed=0)
    with pytest.raises(InputError, match=r"2\.png: damaged on purpose") as caught:
        batches.at(0)
    assert caught.value.code == "input.bad-file"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_skipped_where_that_is_allowed_and_counted(workers: int) -> None:
    batches = Batches(Squares(4, broken=frozenset({1, 2})), section(damaged="skip", workers=workers), seed=0)
    sound = Batches(Squares(4), section(), seed=0)
    steps = list(islice(batches.steps(0), 3))
    for step, [batch] in steps:
        taken = {"1.png": "3.png", "2.png": "3.png"}
        assert batch.ids == tuple(taken.get(name, name) for name in sound.at(step)[0].ids)
    assert batches.report.skipped == 3 * 3, "1.png leads to 2.png and then 3.png, 2.png to 3.png"
    assert set(batches.report.damaged) == {"1.png", "2.png"}
    assert "damaged on purpose" in batches.report.damaged["1.png"]


def test_nothing_readable_is_an_error() -> None:
    batches = Batches(Squares(3, broken=frozenset(range(3))), section(damaged="skip"), seed=0)
    with pytest.raises(InputError, match="none of the 3 samples can be read"):
        batches.at(0)


def test_only_damage_is_skipped() -> None:
    with pytest.raises(InputError) as caught:
        Batches(Squares(3), section(damaged="skip", fit="exact"), seed=0).at(0)
    assert caught.value.code == "input.picture-size"


def test_validation_is_the_first_samples_unmoved() -> None:
    data = Squares(7)
    batches = validation_batches(data, section(**RANDOM, batch=4), 6, seed=9, names=frozenset({"layout"}))
    assert [batch.ids for batch in batches] == [tuple(f"{i}.png" for i in range(4)), ("4.png", "5.png")]
    assert batches[1].draws == Draws(9, 0, (4, 5)) and set(batches[0].inputs[0]) == {"layout"}
    again = validation_batches(data, section(fit="crop", batch=4), 6, seed=9, names=frozenset({"layout"}))
    assert all(same(a, b) for a, b in zip(batches, again, strict=True)), "a random crop becomes the centre's"
    assert sum(len(b.ids) for b in validation_batches(data, section(), None)) == 7
    with pytest.raises(InputError, match="no validation sample"):
        validation_batches(Squares(2, broken=frozenset({0, 1})), section(damaged="skip"), None)


def _slow(key: int) -> int:
    time.sleep(0.01)
    return key


def _dies(key: int) -> int:
    import os

    os._exit(3)


def test_reading_ahead_keeps_order_errors_and_ends() -> None:
    assert list(ahead(_slow, range(7), 0)) == list(range(7)) == list(ahead(_slow, range(7), 2))

    def fails(key: int) -> int:
        raise KeyError(key)

    with pytest.raises(KeyError):
        list(ahead(fails, range(3), 0))
    with pytest.raises(RunError) as caught:
        list(ahead(_dies, range(3), 1))
    assert caught.value.code == "run.worker-died"
