"""What a conditioner promises that learns words."""

from __future__ import annotations

import torch

from ldmkit.contracts.learns_tokens import LearnsTokens
from ldmkit.errors import InputError
from ldmkit.testing.batches import same
from ldmkit.testing.checks import NotApplicable, check, expect
from ldmkit.testing.conditioner.subject import Subject, flat, no_grad

WORD = "<word-of-the-kit>"


@check("conditioner", "learnt-words")
def learnt_words(s: Subject) -> None:
    """A learnt word changes no other text, and none of the tensors that were there before it.

    `learn_token` of a `ldmkit.LearnsTokens` is called on copies that share their tensors with the pipelines in use:
    replace the table of words by a longer one. A word that is known is refused.
    """
    part = s.make()
    if not isinstance(part, LearnsTokens):
        raise NotApplicable("it learns no words")
    values = s.given(part)
    before = flat(no_grad(lambda: s.signal(part, values)))
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*part.parameters(), *part.buffers())]
    vectors = torch.ones(2, part.token_width, dtype=part.dtype)
    try:
        part.learn_token(WORD, vectors)
    except InputError as error:
        if error.code == "input.no-vocabulary":
            raise NotApplicable("without its files it reads no words") from None
        raise
    for tensor, copy in tensors:
        same((tensor,), (copy,), "a tensor that was there before")
    same(flat(no_grad(lambda: s.signal(part, values))), before, "the signal of texts without the word")
    try:
        part.learn_token(WORD, vectors)
    except InputError:
        return
    expect(False, "an InputError for a word that is known", "none")
