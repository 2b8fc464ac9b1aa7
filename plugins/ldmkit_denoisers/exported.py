"""The plan "exported": the U-Net compiled ahead of time for one set of shapes (AOTInductor, frozen).

Compilation takes minutes, once per latent size, batch size and set of conditions, and needs a C++ compiler. Every
package holds another copy of the weights, in the order of its kernels.
"""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ldmkit import CompositionError, Context, check_fresh, fingerprint
from ldmkit.plans.graphed import tensors_in
from ldmkit_denoisers.conditions import Projected, UNetContext
from ldmkit_denoisers.unet import UNet

OPTIONS: dict[str, Any] = {"freezing": True, "cpp.weight_prepack": True}


class ExportedUNet:
    """Called like the eager U-Net; compiled at the first call with new shapes.

    Packages do not contain the network's ports: with taps attached, a call is refused. If x requires a gradient, the
    call is eager.

    Raises:
        CompositionError: `plan-unavailable`, `plan-tapped`, `stale-plan`.
    """

    def __init__(self, unet: UNet, folder: Path | None = None) -> None:
        if unet.device.type != "cpu":
            what = f"the exported plan is for the CPU, the network is on {unet.device}"
            raise CompositionError("plan-unavailable", what, where="plan", fits="plan 'eager' or 'compiled'")
        self._unet, self._made_from = unet, fingerprint(unet)
        self._temporary = None if folder else TemporaryDirectory(prefix="ldmkit-plan-")
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        self._packages: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    def __call__(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        unet = self._unet
        if torch.is_grad_enabled() and x.requires_grad:
            return unet(x, t, context, sigma)  # type: ignore[no-any-return]
        if not isinstance(context, UNetContext) or context.projected is None:
            raise CompositionError("foreign-context", "the context was not prepared by a U-Net")
        tapped = [name for name, port in unet.ports.items() if port.taps]
        if tapped:
            what = f"adapters are attached to {len(tapped)} port(s), {tapped[0]!r} among them"
            raise CompositionError("plan-tapped", what, where="plan", fits="plan 'eager' or 'prepacked'")
        if context.plan is not self:
            check_fresh(unet, self._made_from, "exported")
            context.plan = self
        inputs = _inputs(x, t, context)
        signature = tuple((tuple(value.shape), value.dtype) for value in tensors_in(inputs))
        with torch.no_grad():
            package = self._packages.get(signature)
            if package is None:
                with self._lock:
                    package = self._packages.get(signature) or self._compile(inputs)
                    self._packages[signature] = package
            return package(*inputs)  # type: ignore[no-any-return]

    def _compile(self, inputs: tuple[Any, ...]) -> Any:
        inductor: Any = torch._inductor
        program = torch.export.export(_Flat(self._unet).eval(), inputs)
        path = self._folder / f"unet-{len(self._packages)}.pt2"
        try:
            inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=OPTIONS)
        except (RuntimeError, OSError) as error:
            what = f"the compilation failed: {str(error).splitlines()[0]}"
            raise CompositionError("plan-unavailable", what, where="plan", fits="a C++ compiler") from error
        return inductor.aoti_load_package(str(path))


class _Flat(nn.Module):
    """The network as a function of tensors alone."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        kv: tuple[tuple[Tensor, Tensor], ...],
        mask: Tensor | None,
        vector: Tensor | None,
        freqs: Tensor,
        plane: Tensor | None,
    ) -> Tensor:
        context = UNetContext({}, projected=Projected(kv, mask, vector, freqs), plane=plane)
        return self.unet(x, t, context, None)  # type: ignore[no-any-return]


def _inputs(x: Tensor, t: Tensor, context: UNetContext) -> tuple[Any, ...]:
    projected = context.projected
    assert projected is not None
    # A package is compiled for strides as well: all of them contiguous.
    dense = x.contiguous(), t.contiguous()
    return (*dense, projected.kv, projected.mask, projected.vector, projected.freqs, context.plane)
