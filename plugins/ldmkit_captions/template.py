"""A rewriter that puts a prompt into a sentence: the same for every prompt, without a network."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from ldmkit import Example, Rewriter
from ldmkit_captions.place import PLACE, check_words, one_place


class Template(Rewriter):
    """Rewriter `template`: the prompt inside a text.

    Args:
        text: what is drawn, with `{prompt}` where the prompt goes.
        least_words: prompts of so many words and more stay as they are; 0: all are put into the text.
    """

    api: ClassVar[int] = 1
    examples: ClassVar[tuple[Example, ...]] = (Example(), Example({"text": "{prompt}, in oil", "least_words": 4}))

    text: str = Field(default="A detailed picture of {prompt}.", max_length=4000)
    least_words: int = Field(default=0, ge=0)

    _one_place = field_validator("text")(one_place)

    def rewrite(self, prompt: str) -> str:
        """The text with the prompt in it, without blanks around it.

        Raises:
            InputError: `empty-prompt`.
        """
        words = prompt.strip()
        check_words(words)
        enough = self.least_words and len(words.split()) >= self.least_words
        return words if enough else self.text.replace(PLACE, words)
