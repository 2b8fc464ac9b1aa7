"""Cascades of tiny real pipelines: a class to 8x8 pixels, and a second stage that reads the first one's picture."""

from __future__ import annotations

from typing import Any

import tiny_parts

import ldmkit

PROCESS = ldmkit.get("process", "discrete")(prediction="v")
"""Of what random networks predict from pure noise, v alone gives pictures that are not all black and white."""


def second(label: Any = None, **defaults: Any) -> ldmkit.Pipeline:
    """A class and a picture to a picture of the same size."""
    return ldmkit.Pipeline.of(
        codec=tiny_parts.part("codec", "identity", {}),
        denoiser=tiny_parts.unet(3, in_channels=6),
        process=PROCESS,
        conditioners={"label": label or tiny_parts.label(), "low": tiny_parts.part("conditioner", "image", {})},
        defaults={"steps": 3, "sampler": {"type": "euler-ancestral"}} | defaults,
    )


def cascade() -> ldmkit.Cascade:
    """Both stages read the class by one conditioner."""
    base = tiny_parts.class_pipeline(sampler={"type": "ddpm"}, grid={"type": "trailing"}).with_(process=PROCESS)
    up = second(base.conditioners["label"], grid={"type": "trailing"})
    return ldmkit.Cascade.of({"base": base, "up": up}, {"up": {"inputs": {"low": "base"}}})
