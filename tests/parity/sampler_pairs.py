"""Our samplers, what they are called in other software, and how far apart both are on one denoiser, grid and noise.

`python tests/parity/sampler_pairs.py --write` writes the tables of docs/samplers.md from the classes and from `PAIRS`;
test_sampler_names.py measures every distance and compares the page.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers_runs import MIXTURE, SHAPE, Case, Draws, difference, one_path, our_run, own_levels, their_run
from kdiffusion import samplers
from ldmkit_processes.discrete import Discrete
from ldmkit_samplers.grids.sigmas import Karras
from ldmkit_samplers.grids.timesteps import Leading
from torch import Tensor

from ldmkit import Grid, Sampler, with_unconditional
from ldmkit.plugins.catalogue import catalogue, get

PAGE = Path(__file__).parents[2] / "docs" / "samplers.md"
PROCESS = Discrete()
STEPS = 20
K = {"use_karras_sigmas": True}
LINE = {"timestep_spacing": "linspace"}
PLAIN = {"clip_sample": False, "timestep_spacing": "trailing"}
LEADING = {**PLAIN, "timestep_spacing": "leading"}


@dataclass(frozen=True)
class Pair:
    """One of our samplers beside another library's.

    Args:
        ours: name, and fields where they are not the defaults, as the command line takes them.
        theirs: a class of diffusers with `settings` and arguments of every `step`; or a function of k-diffusion
            (`sample_...`) with `call` for its arguments.
        tolerance: the written distance: largest difference over all steps, relative to the largest value of a state.
        variance: diffusers' state is sqrt(alpha_bar) x rather than x.
        grid: where diffusers calls the network twice at one level, so that its own levels do not say the steps.
    """

    ours: str
    theirs: str
    tolerance: float
    settings: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    variance: bool = False
    injected: bool = False
    steps: int = STEPS
    grid: Grid | None = None

    def __str__(self) -> str:
        return f"{self.ours}-{self.theirs}"

    @property
    def sampler(self) -> Sampler:
        """Ours."""
        name, _, fields = self.ours.partition(":")
        found: Sampler = get("sampler", name).of(dict(_field(text) for text in fields.split(",") if text))
        return found

    @property
    def library(self) -> str:
        """Where theirs is from."""
        return "k-diffusion" if self.theirs.startswith("sample_") else "diffusers"

    def distance(self) -> float:
        """The measured one."""
        return _k_distance(self) if self.library == "k-diffusion" else _diffusers_distance(self)


def _field(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if value.isdigit():
        return key, int(value)
    return key, value if value.isalpha() or value.startswith("bh") else float(value)


def _sigmas_ipndm() -> list[float]:
    levels = Karras().sigmas(PROCESS, STEPS)
    return [s / (1 + s * s) ** 0.5 for s in levels]


VP: dict[str, Any] = {"variance": True}
PAIRS = [
    Pair("ddim", "DDIMScheduler", 1e-5, PLAIN, **VP),
    Pair("ddim:eta=0.7", "DDIMScheduler", 1e-5, PLAIN, {"eta": 0.7}, injected=True, **VP),
    Pair("ddpm", "DDPMScheduler", 1e-5, {**LEADING, "variance_type": "fixed_small"}, **VP),
    Pair("ddpm:variance=large", "DDPMScheduler", 1e-5, {**LEADING, "variance_type": "fixed_large"}, **VP),
    Pair("plms", "PNDMScheduler", 1e-4, {"skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading"},
         grid=Leading(offset=1, end="first"), **VP),
    Pair("euler", "EulerDiscreteScheduler", 1e-5, LINE | K),
    Pair("euler", "sample_euler", 1e-12),
    Pair("euler-ancestral", "EulerAncestralDiscreteScheduler", 1e-5, LINE),
    Pair("euler-ancestral", "sample_euler_ancestral", 1e-12),
    Pair("heun", "HeunDiscreteScheduler", 1e-5, LINE | K),
    Pair("heun", "sample_heun", 1e-12),
    Pair("churn:churn=20,low=0.1,high=10,scale=1.01", "sample_heun", 1e-12,
         call={"s_churn": 20.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01}),
    Pair("dpm2", "KDPM2DiscreteScheduler", 1e-5, LINE | K),
    Pair("dpm2", "sample_dpm_2", 1e-12),
    Pair("dpm2:eta=1", "KDPM2AncestralDiscreteScheduler", 1e-5, LINE | K),
    Pair("dpm2:eta=1", "sample_dpm_2_ancestral", 1e-12),
    Pair("lms", "LMSDiscreteScheduler", 1e-5, LINE | K),
    Pair("lms", "sample_lms", 1e-12),
    Pair("dpmpp-2s-ancestral", "sample_dpmpp_2s_ancestral", 1e-12),
    Pair("dpmpp-sde", "DPMSolverSDEScheduler", 1e-5, LINE | K),
    Pair("dpmpp-sde", "sample_dpmpp_sde", 1e-12),
    Pair("dpmpp-2m", "DPMSolverMultistepScheduler", 1e-5, LINE | K, **VP),
    Pair("dpmpp-2m", "sample_dpmpp_2m", 1e-12),
    Pair("dpmpp-2m-sde", "DPMSolverMultistepScheduler", 1e-5, LINE | K | {"algorithm_type": "sde-dpmsolver++"},
         injected=True, **VP),
    Pair("dpmpp-2m-sde", "sample_dpmpp_2m_sde", 1e-12),
    Pair("dpmpp-3m", "DPMSolverMultistepScheduler", 1e-5, LINE | K | {"solver_order": 3, "solver_type": "heun"}, **VP),
    Pair("dpmpp-3m", "sample_dpmpp_3m_sde", 1e-12, call={"eta": 0.0}),
    Pair("dpmpp-3m:eta=1", "sample_dpmpp_3m_sde", 1e-12),
    Pair("unipc", "UniPCMultistepScheduler", 1e-5, LINE | K, **VP),
    Pair("deis", "DEISMultistepScheduler", 1e-4, LINE | {"solver_order": 3}, **VP),
    Pair("deis:solver_order=2", "DEISMultistepScheduler", 1e-4, LINE, **VP),
    Pair("ipndm", "IPNDMScheduler", 1e-5, {"trained_betas": _sigmas_ipndm()}, **VP),
    Pair("lcm", "LCMScheduler", 1e-5, {"clip_sample": False}, steps=4, **VP),
    Pair("tcd", "TCDScheduler", 1e-5, {"clip_sample": False}, steps=4, **VP),
    Pair("tcd:gamma=1", "TCDScheduler", 1e-5, {"clip_sample": False}, {"eta": 1.0}, steps=4, **VP),
]  # fmt: skip


def _start(sigma: float) -> Tensor:
    return sigma * torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def _diffusers_distance(pair: Pair) -> float:
    case = Case(pair.theirs, pair.sampler, None, pair.steps, pair.settings, pair.variance, pair.call, pair.injected)
    kind = "v" if pair.theirs == "IPNDMScheduler" else "eps"
    sigmas = pair.grid.sigmas(PROCESS, pair.steps) if pair.grid else own_levels(case.scheduler(kind))
    x = _start(sigmas[0])
    theirs, ours = their_run(case, kind, x), our_run(case, PROCESS, x, sigmas)
    if len(theirs) == 2 * len(ours) - 1:  # two calls a step, and one for the last
        theirs = [*theirs[1::2], theirs[-1]]
    if len(theirs) != len(ours):
        theirs, ours = theirs[-1:], ours[-1:]
    return _largest(theirs, ours)


def _k_distance(pair: Pair) -> float:
    function = getattr(samplers(), pair.theirs)
    sigmas = Karras().sigmas(PROCESS, pair.steps)
    x, seen, draws = _start(sigmas[0]), list[Tensor](), Draws()
    given: dict[str, Any] = dict(pair.call)
    if "noise_sampler" in inspect.signature(function).parameters:
        taken = iter(range(10_000))
        given["noise_sampler"] = one_path(draws) if pair.ours == "dpmpp-sde" else lambda *_: draws(next(taken)).double()
    churned = "s_churn" in given
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        drawn = [torch.randn_like(x) for _ in range(pair.steps)]
        torch.manual_seed(5)
        end = function(
            lambda x, sigma: MIXTURE.denoise(x, float(sigma[0])), x, torch.tensor(sigmas, dtype=torch.float64),
            disable=True, callback=lambda at: seen.append(at["x"]), **given,
        )  # fmt: skip
    fresh = Draws()
    run = pair.sampler.steps(MIXTURE.denoise, x, sigmas, lambda i: drawn[i] if churned else fresh(i))
    ours = [step.x for step in run]
    return _largest([end] if churned else [*seen[1:], end], ours[-1:] if churned else ours)


def _largest(theirs: Sequence[Tensor], ours: Sequence[Tensor]) -> float:
    return max(difference(a.double(), b) for a, b in zip(theirs, ours, strict=True))


OTHER_NAMES = {
    "ddim": ("DDIM", "ddim"),
    "ddpm": ("", "ddpm"),
    "plms": ("PLMS", ""),
    "euler": ("Euler", "euler"),
    "euler-ancestral": ("Euler a", "euler_ancestral"),
    "heun": ("Heun", "heun"),
    "dpm2": ("DPM2", "dpm_2"),
    "dpm2:eta=1": ("DPM2 a", "dpm_2_ancestral"),
    "lms": ("LMS", "lms"),
    "dpmpp-2s-ancestral": ("DPM++ 2S a", "dpmpp_2s_ancestral"),
    "dpmpp-sde": ("DPM++ SDE", "dpmpp_sde"),
    "dpmpp-2m": ("DPM++ 2M", "dpmpp_2m"),
    "dpmpp-2m-sde": ("DPM++ 2M SDE", "dpmpp_2m_sde"),
    "dpmpp-3m:eta=1": ("DPM++ 3M SDE", "dpmpp_3m_sde"),
    "unipc": ("UniPC", "uni_pc_bh2"),
    "deis": ("", "deis"),
    "ipndm": ("", "ipndm"),
    "lcm": ("LCM", "lcm"),
    "restart": ("Restart", ""),
    "euler-cfg-pp": ("", "euler_cfg_pp"),
    "euler-ancestral-cfg-pp": ("", "euler_ancestral_cfg_pp"),
    "dpmpp-2m-cfg-pp": ("", "dpmpp_2m_cfg_pp"),
    "dpmpp-2s-ancestral-cfg-pp": ("", "dpmpp_2s_ancestral_cfg_pp"),
}
"""Ours -> AUTOMATIC1111's web interface, ComfyUI. Names alone: neither is run here."""


def names() -> list[str]:
    """All in-tree samplers."""
    return sorted(e.name for e in catalogue() if e.kind == "sampler" and e.dist == "ldmkit")


def tables() -> dict[str, str]:
    """The tables of the page by the name of their place in it."""
    return {"samplers": _samplers(), "names": _other_names()}


def _samplers() -> str:
    rows = []
    for name in names():
        cls = get("sampler", name)
        sampler = cls()
        fields = [f"`{key}={value.default}`" for key, value in cls.model_fields.items() if key != "revision"]
        source = (cls.__doc__ or "").split("\n", 1)[0].split(":")[0].split(";")[0].rstrip(".")
        order = "" if sampler.order is None else str(sampler.order)
        noise = "yes" if _draws(sampler) else "no"
        rows.append([f"`{name}`", order, str(sampler.evaluations(20)), noise, ", ".join(fields), source])
    return _table(["name", "order", "calls in 20 steps", "noise", "fields", "source"], rows)


def _draws(sampler: Sampler) -> bool:
    noise = Draws()
    sigmas = Karras().sigmas(PROCESS, 4)
    for _ in sampler.steps(with_unconditional(MIXTURE.denoise), _start(sigmas[0]), sigmas, noise):
        pass
    return bool(noise.drawn)


def _other_names() -> str:
    rows = []
    paired = [pair.ours for pair in PAIRS]
    lone = [name for name in names() if name not in {ours.partition(":")[0] for ours in paired}]
    for ours in dict.fromkeys([*paired, *OTHER_NAMES, *lone]):
        cells = {pair.library: _cell(pair) for pair in PAIRS if pair.ours == ours}
        libraries = (cells.get(library, "") for library in ("diffusers", "k-diffusion"))
        rows.append([f"`{ours}`", *libraries, *OTHER_NAMES.get(ours, ("", ""))])
    return _table(["ldmkit", "diffusers 0.42.1", "k-diffusion 0.1.1", "A1111", "ComfyUI"], rows)


def _cell(pair: Pair) -> str:
    told = [f"{k}={v}" for k, v in {**pair.settings, **pair.call}.items() if k not in UNTOLD]
    return f"`{pair.theirs}`{' ' if told else ''}{', '.join(told)}: {pair.tolerance:.0e}".replace("e-0", "e-")


UNTOLD = {*LINE, *K, "steps_offset", "clip_sample", "trained_betas"}
"""Settings of the grid and of limits, which are parts of their own here."""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def page(text: str) -> str:
    """The page with its tables as they should be."""
    for name, table in tables().items():
        begin, end = f"<!-- {name}: generated -->", "<!-- end -->"
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def main() -> None:
    """Print what is measured, or write the page."""
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(PAGE.read_text()))
        return
    for pair in PAIRS:
        print(f"{pair!s:<60} {pair.distance():.1e} {pair.tolerance:.0e}")


if __name__ == "__main__":
    main()
