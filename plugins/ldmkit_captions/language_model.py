"""A rewriter on a language model of transformers, from a local folder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator

from ldmkit import Example, InputError, Rewriter
from ldmkit_captions.networks import local_network
from ldmkit_captions.place import PLACE, check_words, one_place

INSTRUCTION = (
    "Describe in one paragraph, in plain words, a picture for this request. Keep everything that it asks for, and add "
    "only what it leaves open.\nRequest: {prompt}\nPicture:"
)


class LanguageModel(Rewriter):
    """Rewriter `language-model`: what a causal language model goes on with, greedily, after an instruction.

    The instruction is put into the tokenizer's chat template, where it has one.

    Args:
        model: folder with the network and its tokenizer. Nothing is downloaded, and no code in it is run.
        instruction: what the model is told, with `{prompt}` where the prompt goes.
        tokens: most tokens of the answer, whose first paragraph is taken.
        device: where it computes.
    """

    api: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[Example, ...]] = (Example(),)

    model: str | None = None
    instruction: str = Field(default=INSTRUCTION, max_length=8000)
    tokens: int = Field(default=120, ge=1, le=4096)
    device: str = "cpu"

    _one_place = field_validator("instruction")(one_place)

    def rewrite(self, prompt: str) -> str:
        """The first paragraph of the model's answer.

        Raises:
            InputError: `no-weights`, `empty-prompt`; `prompt-encoding`: no text that can be written in UTF-8;
                `empty-answer`: the model answers without words.
            SourceError: `not-found`, `unsupported`: there is no language model in the folder.
        """
        if self.model is None:
            raise InputError("no-weights", "the rewriter names no network", where="model", fits="model: FOLDER")
        check_words(prompt)
        if not prompt.isprintable() and any(0xD800 <= ord(sign) <= 0xDFFF for sign in prompt):
            raise InputError("prompt-encoding", "it holds halves of signs (surrogates)", fits="text in UTF-8")
        names = ("AutoModelForCausalLM", "AutoTokenizer", "language model")
        tokenizer, network = local_network(self.model, self.device, *names)
        answer = _answer(tokenizer, network, self.instruction.replace(PLACE, prompt.strip()), self.tokens)
        paragraphs = [" ".join(part.split()) for part in answer.split("\n\n")]
        text = next((part for part in paragraphs if any(map(str.isalnum, part))), "")
        if not text:
            raise InputError("empty-answer", "the model answers without words", fits="another model, or prompt")
        return text


@torch.no_grad()
def _answer(tokenizer: Any, network: Any, text: str, tokens: int) -> str:
    if getattr(tokenizer, "chat_template", None):
        chat = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    given = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(network.device)
    length, most = given["input_ids"].shape[1], getattr(network.config, "max_position_embeddings", None)
    if most is not None and length + tokens > most:
        what = f"the instruction has {length} tokens, the answer up to {tokens}, and the model reads {most}"
        raise InputError("prompt-long", what, fits="a shorter prompt, or fewer `tokens`")
    made = network.generate(**given, do_sample=False, num_beams=1, max_new_tokens=tokens)
    return str(tokenizer.decode(made[0, length:], skip_special_tokens=True))
