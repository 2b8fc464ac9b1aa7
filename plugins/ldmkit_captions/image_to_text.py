"""A captioner on an image-to-text network of transformers (BLIP and its like), from a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Captioner, Captions, Example, InputError, RunError, to_levels
from ldmkit_captions.networks import local_network


class ImageToText(Captioner):
    """Captioner `image-to-text`: a network that `transformers` loads as AutoModelForImageTextToText, read greedily.

    The short and the long caption differ in their number of tokens, and in the words that they begin with.

    Args:
        model: folder with the network and its processor. Nothing is downloaded, and no code in it is run.
        short_tokens, long_tokens: most tokens of each.
        least_tokens: least tokens of the long one.
        short_prompt, long_prompt: words that the network goes on from, which are part of the caption; empty: none.
        device: where it computes.
    """

    api: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[Example, ...]] = (Example(),)

    model: str | None = None
    short_tokens: int = Field(default=12, ge=1, le=4096)
    long_tokens: int = Field(default=80, ge=1, le=4096)
    least_tokens: int = Field(default=24, ge=0, le=4096)
    short_prompt: str = ""
    long_prompt: str = ""
    device: str = "cpu"

    def caption(self, picture: Tensor, facts: Mapping[str, Any]) -> Captions:
        if self.model is None:
            raise InputError("no-weights", "the captioner names no network", where="model", fits="model: FOLDER")
        names = ("AutoModelForImageTextToText", "AutoProcessor", "image-to-text network")
        processor, network = local_network(self.model, self.device, *names)
        image = to_levels(picture)
        short = _text(processor, network, image, self.short_prompt, most=self.short_tokens, least=0)
        long = _text(processor, network, image, self.long_prompt, most=self.long_tokens, least=self.least_tokens)
        return Captions(short, long)


@torch.no_grad()
def _text(processor: Any, network: Any, image: Any, prompt: str, *, most: int, least: int) -> str:
    words = {"text": prompt} if prompt else {}
    given = processor(images=image, return_tensors="pt", **words).to(network.device)
    made = network.generate(**given, do_sample=False, num_beams=1, max_new_tokens=most, min_new_tokens=min(least, most))
    text = " ".join(processor.batch_decode(made, skip_special_tokens=True)[0].split())
    if not any(map(str.isalnum, text)):
        raise RunError("empty-caption", "the network says nothing of a picture", fits="a network that was trained")
    return str(text)
