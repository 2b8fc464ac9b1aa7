"""Cases of the bad-input table: parts of other people that return what their contract does not say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import tiny_parts
import torch
from cases_calls import NAN, Case, Env, L
from torch import Tensor

import ldmkit

Change = Callable[[Tensor], Any]


def told(name: str, code: str, *words: str, act: Callable[[Env], Any]) -> Case:
    """The message says whose fault it is."""
    return Case(name, code, ("breaks its contract", *words), act)


def codec(name: str, method: str, *words: str, change: Change) -> Case:
    """A codec whose method returns something else than the KL codec does."""

    def act(_: Env) -> Any:
        pipe = tiny_parts.class_pipeline("kl")
        good = getattr(pipe.codec, method)
        setattr(pipe.codec, method, lambda *given: change(good(*given)))
        return pipe.encode(torch.zeros(1, 3, 16, 16)) if method == "encode" else pipe(L, steps=1)

    return told(f"codec that {method}s to {name}", "run.bad-return", "codec 'kl' of ldmkit", method, *words, act=act)


def denoiser(name: str, *words: str, change: Change, method: str = "forward") -> Case:
    """A denoiser whose method returns something else than the U-Net does."""

    def act(_: Env) -> Any:
        pipe = tiny_parts.class_pipeline()
        good = getattr(pipe.denoiser, method)
        setattr(pipe.denoiser, method, lambda *given: change(good(*given)))
        return pipe(L, steps=1)

    return told(f"denoiser that returns {name}", "run.bad-return", "denoiser 'unet' of ldmkit", *words, act=act)


class Shaped(ldmkit.Guidance):
    """One view, and then something else than it."""

    change: Any

    def __call__(self, evaluate: Any, x: Tensor, sigma: float) -> Any:
        return self.change(evaluate(x, sigma, frozenset())[0], x)


def guidance(name: str, *words: str, change: Callable[[Tensor, Tensor], Any]) -> Case:
    return told(f"guidance that {name}", "run.bad-return", "guidance", "Shaped", *words,
                act=lambda e: e.pipe(L, steps=1, guidance=Shaped(change=change)))  # fmt: skip


class Views(ldmkit.Guidance):
    """Asks for a view that is none."""

    view: Any

    def __call__(self, evaluate: Any, x: Tensor, sigma: float) -> Any:
        return evaluate(x, sigma, self.view)[0]


class Stepped(ldmkit.Sampler):
    """Euler's method, whose steps are something else."""

    change: Any

    def steps(self, denoise: Any, x: Any, sigmas: Any, noise: Any) -> Any:
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            x0 = denoise(x, sigma)
            x = x0.lerp(x, after / sigma)
            yield self.change(i, len(sigmas) - 1, sigma, after, x, x0)


class Stepless(ldmkit.Sampler):
    """Forgets to yield."""

    def steps(self, denoise: Any, x: Any, sigmas: Any, noise: Any) -> Any:
        return None


def sampler(name: str, *words: str, change: Callable[..., Any]) -> Case:
    return told(f"sampler that yields {name}", "run.bad-step", "sampler", "Stepped", *words,
                act=lambda e: e.pipe(L, steps=2, sampler=Stepped(change=change)))  # fmt: skip


class Levels(ldmkit.Grid):
    """Whatever it is told."""

    made: Any

    def sigmas(self, process: Any, steps: int) -> Any:
        return self.made


def grid(name: str, *words: str, made: Any) -> Case:
    return told(f"grid that makes {name}", "run.bad-return", "grid", "Levels", *words,
                act=lambda e: e.pipe(L, steps=2, grid=Levels(made=made)))  # fmt: skip


def conditioner(name: str, *words: str, change: Change, method: str = "forward") -> Case:
    """A label conditioner whose method returns something else."""

    def act(_: Env) -> Any:
        pipe = tiny_parts.class_pipeline()
        good = getattr(pipe.conditioners["label"], method)
        setattr(pipe.conditioners["label"], method, lambda *given: change(good(*given)))
        return pipe(L, steps=1, guidance=2.0)

    return Case(f"conditioner whose {method} is {name}", "compose.wrong-signal", ("conditioner 'label", *words), act)


STRANGERS = [
    codec("None", "encode", "NoneType", change=lambda z: None),
    codec("too few channels", "encode", "(1, 1, 4, 4)", "(1, 2, 4, 4)", change=lambda z: z[:, :1]),
    codec("transposed axes", "encode", "(1, 4, 2, 4)", change=lambda z: z.transpose(1, 2)),
    codec("whole numbers", "encode", "torch.int64", "floats", change=lambda z: z.long()),
    codec("a pair", "encode", "tuple", change=lambda z: (z, z)),
    codec("None", "decode", "NoneType", change=lambda x: None),
    codec("grey", "decode", "(1, 1, 16, 16)", "(1, 3, 16, 16)", change=lambda x: x[:, :1]),
    codec("half the size", "decode", "(1, 3, 8, 8)", change=lambda x: x[..., ::2, ::2]),
    codec("levels of bytes", "decode", "torch.uint8", change=lambda x: x.byte()),
    codec("channels last", "decode", "(1, 16, 16, 3)", change=lambda x: x.permute(0, 2, 3, 1)),
    denoiser("None", "forward returned NoneType", change=lambda f: None),
    denoiser("a tuple", "tuple", change=lambda f: (f,)),
    denoiser("one channel, which would be spread", "(1, 1, 8, 8)", "(1, 3, 8, 8)", change=lambda f: f[:, :1]),
    denoiser("a mean a row, which would be spread", "(1, 3, 1, 1)", change=lambda f: f.mean((2, 3), keepdim=True)),
    denoiser("four channels, of which three would be read", "(1, 4, 8, 8)", "or (1, 6, 8, 8)",
             change=lambda f: torch.cat([f, f[:, :1]], 1)),
    denoiser("a row too many", "(2, 3, 8, 8)", change=lambda f: torch.cat([f, f])),
    denoiser("whole numbers", "torch.int32", change=lambda f: f.int()),
    denoiser("no context", "prepare returned dict", "an ldmkit.Context", method="prepare", change=lambda c: {}),
    guidance("returns None", "NoneType", change=lambda x0, x: None),
    guidance("returns a list", "list", change=lambda x0, x: [x0]),
    guidance("returns one channel", "(1, 1, 8, 8)", change=lambda x0, x: x0[:, :1]),
    guidance("returns a number", "()", change=lambda x0, x: x0.mean()),
    guidance("writes into the state", "it modified its input", "a new tensor", change=lambda x0, x: x.mul_(0.5)),
    Case("guidance that asks for a view by its name", "input.names-type", ("views[0]", "'label'"),
         lambda e: e.pipe(L, steps=1, guidance=Views(view="label"))),
    Case("guidance that drops what is not there", "compose.unknown-condition", ("'text'", "known: label"),
         lambda e: e.pipe(L, steps=1, guidance=Views(view=frozenset({"text"})))),
    sampler("tuples", "yielded tuple", "an ldmkit.Step", change=lambda *s: s),
    sampler("a step without a state", "NoneType", change=lambda i, n, a, b, x, x0: ldmkit.Step(i, n, a, b, None, x0)),
    sampler("a step without an estimate", "NoneType",
            change=lambda i, n, a, b, x, x0: ldmkit.Step(i, n, a, b, x, None)),
    sampler("an estimate of another shape", "an x0 of (1, 1, 8, 8)",
            change=lambda i, n, a, b, x, x0: ldmkit.Step(i, n, a, b, x, x0[:, :1])),
    told("sampler that returns None", "run.bad-step", "Stepless", "returned NoneType from steps",
         act=lambda e: e.pipe(L, steps=2, sampler=Stepless())),
    grid("None", "None", made=None),
    grid("a text", "'10'", made="10"),
    grid("one level", "[5.0]", made=[5.0]),
    grid("rising levels", "strictly decreasing", made=[1.0, 2.0, 0.0]),
    grid("a level twice", "[2.0, 2.0, 0.0]", made=[2.0, 2.0, 0.0]),
    grid("NaN", "nan", made=[2.0, NAN, 0.0]),
    grid("texts", "'2'", made=["2", "1"]),
    grid("a generator", "generator", made=(s for s in (2.0, 0.0))),
    conditioner("a mask of numbers", "torch.float32", "bools", change=lambda t: t._replace(mask=t.value[..., 0])),
    conditioner("a mask of another length", "(1, 3)",
                change=lambda t: t._replace(mask=torch.ones(1, 3, dtype=torch.bool))),
    conditioner("whole numbers", "torch.int64", change=lambda t: t._replace(value=t.value.long())),
    conditioner("no tensor", "NoneType", change=lambda t: t._replace(value=None)),
    conditioner("None", "NoneType", method="null", change=lambda t: None),
    conditioner("a tensor", "Tensor", method="null", change=lambda t: t.value),
    conditioner("of another width", "dim 4", method="null", change=lambda t: t._replace(value=t.value[..., :4])),
    conditioner("of more rows", "2 rows", method="null",
                change=lambda t: t._replace(value=torch.cat([t.value, t.value]))),
]  # fmt: skip
