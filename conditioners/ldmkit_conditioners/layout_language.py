"""Layouts as sequences: a causal transformer that reads a prompt and generates boxes, one number after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldmkit import seeded
from ldmkit.run.guards import finite
from ldmkit_conditioners.transformer import Block

SLOTS = 5
"""Numbers per object: its class, then centre (x, y), width and height in steps of 1 / bins."""
BEAM = 32
"""Beam width: number of alternatives kept while the things of a layout are named."""
_WORD_STD, _PLACE_STD = 0.5, 0.25
_STAGE = "proposing a layout"


class LayoutLanguage(nn.Module):
    """p(objects | prompt): Gupta et al. 2021 (LayoutTransformer, arXiv:2006.14615, section 3.2), preceded by a prompt.

    A row consists of the prompt's ids, padded to `prompt`, a begin mark, five numbers per object, and an end mark
    instead of a class. Each number is categorical and predicted from all that precede it.

    Args:
        words: ids of the prompt's vocabulary.
        classes: number of object classes.
        bins: number of steps into which a coordinate is divided.
        prompt: ids in a prompt, including padding.
        objects: maximum number of objects.
        width, layers, heads: of the transformer.
    """

    def __init__(
        self, words: int, classes: int, bins: int, prompt: int, objects: int, width: int, layers: int, heads: int
    ):
        super().__init__()
        self.classes, self.bins, self.prompt, self.objects = classes, bins, prompt, objects
        self.words = nn.Embedding(words, width)
        self.labels = nn.Embedding(classes + 1, width)  # the last one is the begin mark
        self.places = nn.Embedding(bins, width)
        self.slots = nn.Embedding(SLOTS, width)
        self.positions = nn.Embedding(prompt + 1 + SLOTS * objects, width)
        make = (Block(width, heads, width // heads, 4 * width, "gelu", bias=False, causal=True) for _ in range(layers))
        self.blocks = nn.ModuleList(make)
        self.norm = nn.LayerNorm(width)
        self.label_head = nn.Linear(width, classes + 1)  # the last one is the end mark
        self.place_head = nn.Linear(width, bins)
        for table in (self.words, self.labels, self.places):
            nn.init.normal_(table.weight, std=_WORD_STD)
        for table in (self.slots, self.positions):
            nn.init.normal_(table.weight, std=_PLACE_STD)

    def forward(self, prompts: Tensor, numbers: Tensor) -> Tensor:
        """Hidden states from which the number after each position is predicted.

        Args:
            prompts: (B, prompt) int64.
            numbers: (B, N) int64, N < 5 * objects; number i is a class where i % 5 == 0, else a step.

        Returns:
            Hidden states (B, N + 1, width): state i is read by `label_head` where i % 5 == 0, else by `place_head`.
        """
        count = numbers.shape[1]
        slot = torch.arange(count, device=numbers.device) % SLOTS
        is_label = slot == 0
        label, place = numbers.clamp(max=self.classes), numbers.clamp(max=self.bins - 1)
        written = torch.where(is_label[None, :, None], self.labels(label), self.places(place)) + self.slots(slot)
        begin = self.labels.weight[self.classes].expand(len(prompts), 1, -1)
        x = torch.cat([self.words(prompts), begin, written], dim=1)
        x = x + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, self.prompt :])

    def losses(self, prompts: Tensor, layouts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Negative log-likelihood of layouts (n_i, 5) int64, in nats per layout, for `labels` and `places`."""
        longest = max(len(layout) for layout in layouts)
        numbers = torch.zeros(len(layouts), SLOTS * longest, dtype=torch.int64, device=prompts.device)
        labels = torch.full((len(layouts), longest + 1), -1, dtype=torch.int64, device=prompts.device)
        for row, layout in enumerate(layouts):
            numbers[row, : layout.numel()] = layout.flatten()
            labels[row, : len(layout)] = layout[:, 0]
            labels[row, len(layout)] = self.classes
        states = self(prompts, numbers)
        label_logits = self.label_head(states[:, ::SLOTS]).float()
        by_object = states[:, :-1].reshape(len(layouts), longest, SLOTS, states.shape[-1])
        place_logits = self.place_head(by_object[:, :, 1:]).float()
        objects = (labels[:, :-1] >= 0) & (labels[:, :-1] < self.classes)
        places = numbers.view(len(layouts), longest, SLOTS)[:, :, 1:].masked_fill(~objects[:, :, None], -1)
        found = {"labels": _nats(label_logits, labels), "places": _nats(place_logits, places)}
        return {name: total / len(layouts) for name, total in found.items()}

    @torch.no_grad()
    def write(self, prompt: Tensor, seed: int, temperature: float) -> Tensor:
        """A layout (n, 5) int64 drawn for one prompt (prompt,): the same for the same seed; 0 <= n <= objects.

        Raises:
            RunError: `not-finite`: the weights give no probabilities.
        """
        generator = seeded(seed, "layout")
        numbers: list[int] = []
        while len(numbers) < SLOTS * self.objects:
            written = torch.tensor([numbers], dtype=torch.int64, device=prompt.device)
            state = self(prompt[None], written)[0, -1]
            head = self.place_head if len(numbers) % SLOTS else self.label_head
            shares = (head(state).double().cpu() / temperature).softmax(0)
            finite(shares, _STAGE)
            number = int(torch.multinomial(shares, 1, generator=generator))
            if len(numbers) % SLOTS == 0 and number == self.classes:
                break
            numbers.append(number)
        return torch.tensor(numbers, dtype=torch.int64).view(-1, SLOTS)

    @torch.no_grad()
    def name(
        self,
        prompt: Tensor,
        places: Sequence[Sequence[int]],
        among: Sequence[Sequence[int]],
        seed: int,
        temperature: float,
    ) -> list[int]:
        """Classes for things whose places are known, drawn for one prompt (prompt,): the same for the same seed.

        Args:
            places: four steps per thing, as in a layout and in its order.
            among: the possible classes of each.

        Raises:
            RunError: `not-finite`, as `write`.
        """
        rows = torch.zeros(1, 0, dtype=torch.int64, device=prompt.device)
        scores = torch.zeros(1, dtype=torch.float64)
        for place, choices in zip(places, among, strict=True):
            more = torch.tensor([[choice, *place] for choice in choices], device=prompt.device)
            start, count = rows.shape[1], len(rows)
            rows = torch.cat([rows.repeat_interleave(len(choices), 0), more.repeat(count, 1)], dim=1)
            scores = scores.repeat_interleave(len(choices)) + self._scores(prompt, rows, start)
            best = scores.topk(min(BEAM, len(scores))).indices
            rows, scores = rows[best.to(rows.device)], scores[best]
        shares = (scores / temperature).softmax(0)
        finite(shares, _STAGE)
        chosen = int(torch.multinomial(shares, 1, generator=seeded(seed, "names")))
        return list(rows[chosen, ::SLOTS].tolist())

    def _scores(self, prompt: Tensor, rows: Tensor, start: int) -> Tensor:
        """log p of the numbers from `start` on, an object, given those before them: (rows,) float64 on the CPU."""
        states = self(prompt.expand(len(rows), -1), rows[:, :-1])[:, start:]
        labels = self.label_head(states[:, :1]).double().log_softmax(-1)
        places = self.place_head(states[:, 1:]).double().log_softmax(-1)
        found = [labels.gather(-1, rows[:, start : start + 1, None]), places.gather(-1, rows[:, start + 1 :, None])]
        return torch.cat(found, dim=1).sum((1, 2)).cpu()


def _nats(logits: Tensor, wanted: Tensor) -> Tensor:
    """Summed cross-entropy, ignoring targets of -1."""
    return F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=-1, reduction="sum")
