"""The contract of all modules: the checks that the suites of codecs, denoisers, conditioners ... share.

A suite describes its parts by a subclass of `ModuleSubject` (how inputs are made, and how the part is run on them), and
registers the shared checks for its kind with `share(kind)`.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldmkit.models.meta import on_meta
from ldmkit.models.weights import LazyTensor, assign, open_safetensors, write_safetensors
from ldmkit.testing.batches import close, differ, expect_keys, expect_state, leaves, rows_of, same, snapshot
from ldmkit.testing.checks import NotApplicable, check, expect, fail, told
from ldmkit.testing.opened import files_opened
from ldmkit.testing.rng import without_draws

ROWS = 3
"""Number of samples in the kit's batches."""


@dataclass(frozen=True)
class ModuleSubject(ABC):
    """A part that owns weights, its config, and how it is run.

    Args:
        cls: the part's class.
        config: its config.
        trained: whether it has anything to learn (`Example.trained`).
    """

    cls: type[Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True

    def build(self) -> Any:
        """A new part as its class builds it, always from the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.cls(dict(self.config))

    def make(self, seed: int = 0) -> Any:
        """A new part, ready to use, without zero-initialised layers, which would hide the layers before them."""
        return perturbed(self.build(), seed).eval()

    @abstractmethod
    def given(self, part: Any) -> Any:
        """Inputs of `ROWS` different samples: new objects with the same values at every call.

        Tensors (rows first, with the part's device and, for floats, its dtype), lists of one item per sample, and
        mappings and tuples of these.
        """

    @abstractmethod
    def outputs(self, part: Any, given: Any) -> tuple[Tensor, ...]:
        """All outputs of the part, rows first, in a fixed order."""

    def output_dtype(self, part: Any) -> torch.dtype:
        """The dtype that its floating-point outputs must have."""
        dtype: torch.dtype = part.dtype
        return dtype

    def learning(self, part: Any, given: Any) -> tuple[Tensor, ...]:
        """Outputs that training would use in a loss: every trained parameter must contribute to them."""
        return self.outputs(part, given)


def share(kind: str, exclude: Sequence[str] = ()) -> None:
    """Register the shared checks for a kind, except those that its suite defines itself."""
    for name, function in SHARED.items():
        if name not in exclude:
            check(kind, name, cause=name in CAUSES)(function)


def perturbed(part: Any, seed: int = 0) -> Any:
    """The part with noise of standard deviation 0.5 / sqrt(fan-in) added to every parameter, half a usual layer's."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            spread = 0.5 * (parameter.shape[0] / parameter.numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator).to(parameter))
    return part


def ran(subject: ModuleSubject, part: Any, given: Any) -> tuple[Tensor, ...]:
    """Run the part without gradients."""
    with torch.no_grad():
        return subject.outputs(part, given)


def meta(s: ModuleSubject) -> None:
    """It can be built on the meta device, without reading files.

    Pipelines are first built without memory, to compare shapes with the weight file before anything is read; the
    weights then replace the empty tensors. So `__init__` must not read files (that is the task of `load_assets`), nor
    tensor values. Buffers that are not in the file (`persistent=False`) need their values at once: create them with
    `device="cpu"` and move them when they are used, or compute them then. Training keeps what is frozen by design
    (`requires_grad_(False)`, `eval()`) frozen, as determined from a part built on the meta device.
    """
    real = s.build()
    with on_meta(), files_opened() as opened:
        bare = s.cls(dict(s.config))
    expect(not opened, "no file read while it is built", f"{opened[:3]}")
    state = bare.state_dict()
    there = [key for key, tensor in state.items() if not tensor.is_meta]
    expect(not there, "every tensor of the state dict on the meta device", f"{there[:4]} elsewhere")
    expect_keys(state, real.state_dict(), "built on the meta device")
    differ = sorted(_frozen(bare) ^ _frozen(real))
    expect(not differ, "the same parameters and modules frozen as on the CPU", f"a difference in {differ[:4]}")


def _frozen(part: nn.Module) -> set[str]:
    """Parameters and modules that the author froze, by name."""
    tensors = {name for name, parameter in part.named_parameters() if not parameter.requires_grad}
    return tensors | {f"{name or 'the part'}.eval()" for name, module in part.named_modules() if not module.training}


def state_keys(s: ModuleSubject) -> None:
    """State-dict keys and shapes are the same in every build, and a run changes neither keys nor values.

    Weights are loaded by key. With keys that depend on a counter or on the order of a set, or that appear only with the
    first call (lazy layers), files cannot be loaded again. Statistics that change during use would make results depend
    on earlier calls.
    """
    first = s.make()
    before = snapshot(first)
    expect_keys(s.make().state_dict(), before, "a second build")
    ran(s, first, s.given(first))
    expect_state(first.state_dict(), before, "after a run")


def weights(s: ModuleSubject) -> None:
    """Saved to a safetensors file and loaded again, it gives the same results.

    Everything that affects results must be in the state dict (parameters and buffers), in the config, or in what
    `save_assets` writes; a plain tensor attribute is lost. The loaded part is built on the meta device, as in
    pipelines.
    """
    part = s.make()
    given = s.given(part)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_safetensors(path, part.state_dict())
        part.save_assets(Path(folder))
        with on_meta():
            again = s.cls(part.config.model_dump(mode="json"))
        found = open_safetensors(path)
        assign(again, {key: LazyTensor.of(lazy.read(True)) for key, lazy in found.items()}, s.cls.__name__)
        again.load_assets(Path(folder))
        again.eval()
        lost = [name for name, value in plain_tensors(again) if value.is_meta]
        expect(not lost, "every tensor in the state dict, the config or a file", f"only as an attribute: {lost[:4]}")
        expect_state(again.state_dict(), part.state_dict(), "loaded again")
        close(ran(s, again, s.given(again)), ran(s, part, given), "outputs of the loaded part", 1e-6)


def plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that are plain attributes of modules, by path."""
    for path, inner in module.named_modules():
        for name, value in vars(inner).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}" if path else name, value


def copies(s: ModuleSubject) -> None:
    """It can be pickled and deep-copied; the copy gives the same results and shares nothing with the original.

    Training with several processes pickles parts; weight averaging and tests copy them. Attributes that are lambdas or
    open files cannot be pickled: use methods, and open files when they are needed.
    """
    part = s.make()
    wanted = ran(s, part, s.given(part))
    for how, copied in (("pickled", _pickled), ("deep-copied", copy.deepcopy)):
        try:
            again = copied(part)
        except Exception as error:
            fail(f"a {how} one", told(error))
        same(ran(s, again, s.given(again)), wanted, f"outputs of a {how} part")
        with torch.no_grad():
            for parameter in again.parameters():
                parameter.zero_()
        same(ran(s, part, s.given(part)), wanted, f"outputs after the weights of the {how} part were changed")


def _pickled(part: Any) -> Any:
    return pickle.loads(pickle.dumps(part))


def determinism(s: ModuleSubject) -> None:
    """The same inputs give the same results, bit for bit, whatever was computed before.

    Pictures are reproduced from their recipes. Nothing that changes a result may be kept between calls, and random
    numbers may only come from noise that the caller passes.
    """
    part = s.make()
    first = ran(s, part, s.given(part))
    same(ran(s, part, s.given(part)), first, "a second call")
    ran(s, part, rows_of(s.given(part), [1, 0]))
    same(ran(s, part, s.given(part)), first, "a call after other inputs")


def no_global_rng(s: ModuleSubject) -> None:
    """A run neither advances nor reads the global random generators of torch, NumPy and Python.

    Random numbers come from `ldmkit.Noise` and the seed of the sample, so that a sample does not depend on other draws.
    `torch.randn(...)` without a generator (also inside `fork_rng`), dropout in eval mode, and `torch.manual_seed` all
    break this.
    """
    part = s.make()

    def run(seed: int) -> tuple[Tensor, ...]:
        return without_draws(lambda: ran(s, part, s.given(part)), seed)

    first, again, other = run(1), run(1), run(2)
    if differ(again, first):
        raise NotApplicable("its results differ at every call: see the check determinism")
    same(other, first, "a run with another global seed")


def inputs_untouched(s: ModuleSubject) -> None:
    """The caller's inputs are not modified.

    Samplers reuse the tensors that they pass, and an input may go to several parts. Use in-place operations (`x += y`,
    `x.mul_(2)`, `relu(inplace=True)`) only on tensors that the part created, and copy lists and mappings before
    changing them.
    """
    part = s.make()
    given, untouched = s.given(part), s.given(part)
    ran(s, part, given)
    found, wanted = dict(leaves(given)), dict(leaves(untouched))
    expect(list(found) == list(wanted), f"inputs {list(wanted)}", f"after the call: {list(found)}")
    for path, value in wanted.items():
        expect(_unchanged(found[path], value), f"input {path or 'tensor'} unchanged", "it was modified")


def _unchanged(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)
    if isinstance(wanted, np.ndarray):
        return bool(np.array_equal(found, wanted))
    return bool(found is wanted or found == wanted)


def dtype(s: ModuleSubject) -> None:
    """Converted to bfloat16, it takes and returns bfloat16, with finite results.

    `part.to(torch.bfloat16)` converts parameters and buffers; constants created in `forward` must follow them
    (`torch.zeros(..., dtype=x.dtype, device=x.device)`). Compute what needs more precision in float32 internally.
    """
    part = s.make().to(torch.bfloat16)
    try:
        outputs = ran(s, part, s.given(part))
    except RuntimeError as error:
        fail("a run in bfloat16", told(error))
    for found in outputs:
        if found.is_floating_point():
            wanted = s.output_dtype(part)
            expect(found.dtype == wanted, f"outputs of {wanted}", f"{found.dtype}")
            expect(bool(found.isfinite().all()), "finite outputs in bfloat16", "NaN or infinity")


def device(s: ModuleSubject) -> None:
    """It works on the device that it was moved to, and its results are on that device.

    Checked on an accelerator if there is one, else on the meta device, which also detects tensors created on another
    device. A part whose control flow depends on tensor values cannot run there, and is then skipped.
    """
    where = torch.device("cuda" if torch.cuda.is_available() else "meta")
    part = s.make().to(where)
    if part.device.type != where.type:
        raise NotApplicable("it has no tensors")
    try:
        found = ran(s, part, s.given(part))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if where.type == "meta" and any(words in str(error) for words in _NEEDS_NUMBERS):
            raise NotApplicable("its control flow depends on tensor values, and there is no accelerator here") from None
        fail(f"a run on {where}", told(error))
    for tensor in found:
        expect(tensor.device.type == where.type, f"outputs on {where}", f"on {tensor.device}")


_NEEDS_NUMBERS = (
    "cannot be called on meta tensors",
    "no data",
    "can't convert meta",
    "meta tensor",
    "Meta tensor",
    "'Meta' backend",
    "not implemented for 'Meta'",
)


def batch_invariance(s: ModuleSubject) -> None:
    """A sample gives the same results alone and in a batch, up to rounding.

    A sample's seed determines its picture, whatever else is in the batch. Statistics over the batch (batch norm in
    training mode, a mean over all rows) and unmasked padding break this.
    """
    part = s.make()
    whole = ran(s, part, s.given(part))
    for row in range(ROWS):
        alone = ran(s, part, rows_of(s.given(part), [row]))
        close(alone, [out[row : row + 1] for out in whole], f"sample {row} alone, and in a batch of {ROWS}")


def training_rows(s: ModuleSubject) -> None:
    """In training mode too, a sample's results do not depend on the other samples of its batch.

    With batch norm and other statistics over the batch, training on a divided batch (`accumulate`, several processes)
    differs from training on the whole batch, and running averages differ from the statistics used in training: use
    group or layer norm. Dropout is allowed: it draws the same numbers in both runs of this check.
    """
    part, runs = s.make().train(), []
    for rows in ([0, 1, 1, 1], [0, 1, 0, 0]):  # no new samples, which might be longer, but another batch mean
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            runs.append([out[:2] for out in ran(s, part, rows_of(s.given(part), rows))])
    close(runs[1], runs[0], "samples 0 and 1 in training mode, with others beside them")


def order(s: ModuleSubject) -> None:
    """Reordering the samples of a batch reorders the results.

    Results must not depend on the position in the batch.
    """
    part = s.make()
    whole = ran(s, part, s.given(part))
    turned = list(reversed(range(ROWS)))
    close(ran(s, part, rows_of(s.given(part), turned)), [out[turned] for out in whole], "the batch in reverse order")


def gradients(s: ModuleSubject) -> None:
    """Every parameter that requires a gradient gets a finite one.

    A parameter without a gradient is never trained: it is not used in the forward pass, or `detach`, `no_grad` or a
    conversion to Python numbers cuts it off. Mark parameters that are frozen by design with `requires_grad_(False)`.
    """
    if not s.trained:
        raise NotApplicable("its example says that it has nothing to learn")
    part = s.make().train()
    wanted = {name: p for name, p in part.named_parameters() if p.requires_grad}
    if not wanted:
        raise NotApplicable("no parameter requires a gradient")
    losses = [out.float().square().mean() for out in s.learning(part, s.given(part)) if out.requires_grad]
    expect(bool(losses), "an output that requires a gradient", "none of the outputs does")
    torch.autograd.backward(losses)
    without = [name for name, p in wanted.items() if p.grad is None]
    expect(not without, "a gradient for every parameter", f"none for {len(without)}: {without[:4]}")
    broken = [name for name, p in wanted.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
    expect(not broken, "finite gradients", f"NaN or infinity for {broken[:4]}")


SHARED: dict[str, Callable[[ModuleSubject], None]] = {
    "meta": meta,
    "state-keys": state_keys,
    "safetensors": weights,
    "copies": copies,
    "no-global-rng": no_global_rng,
    "determinism": determinism,
    "inputs-untouched": inputs_untouched,
    "dtype": dtype,
    "device": device,
    "batch-invariance": batch_invariance,
    "training-rows": training_rows,
    "order": order,
    "gradients": gradients,
}
"""The shared checks by name, in order of registration."""

CAUSES = ("no-global-rng", "determinism")
"""Shared checks that others depend on: results that differ at every call cannot be compared."""
