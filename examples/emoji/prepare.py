"""Emoji with their names as captions, and a vocabulary of the words in them.

    git clone --depth 1 https://github.com/googlefonts/noto-emoji
    python examples/emoji/prepare.py noto-emoji/png/128

Writes `data/train` and `data/held-out` beside this file (pictures 96x96 on white, `metadata.jsonl`), and
`data/vocabulary/vocab.txt`. Pictures of one code point are taken; captions are their Unicode names. Held out are
pictures whose every word stands in other captions too, one in four of these: nobody can know what a "mushroom" looks
like who never saw one, but of "cat face with tears of joy" one can.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIDE = 96
EVERY = 4
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
NAME = re.compile(r"(?:emoji_u)?([0-9a-f]{4,6})\.png")


def words(caption: str) -> list[str]:
    """As BERT's tokenizer parts them: punctuation stands alone."""
    return re.findall(r"\w+|[^\w\s]", caption)


def captioned(folder: Path) -> dict[str, tuple[Path, str]]:
    """Code point in hexadecimal -> file and name."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        match = NAME.fullmatch(path.name)
        caption = unicodedata.name(chr(int(match[1], 16)), "").lower() if match else ""
        if match and caption:
            found[match[1]] = (path, caption)
    return found


def parted(captions: dict[str, str]) -> list[str]:
    """Keys that are held out; every word of theirs stays in the captions of others."""
    left = Counter(word for caption in captions.values() for word in set(words(caption)))
    held_out, candidates = [], 0
    for key, caption in captions.items():
        if all(left[word] > 1 for word in set(words(caption))):
            candidates += 1
            if candidates % EVERY == 0:
                held_out.append(key)
                left.subtract(set(words(caption)))
    return held_out


def vocabulary(captions: Sequence[str]) -> list[str]:
    """Special tokens; letters, of which unknown words are spelled; words."""
    letters = sorted({letter for caption in captions for letter in caption if not letter.isspace()})
    every = {word for caption in captions for word in words(caption)} - set(letters)
    return [*SPECIAL, *letters, *(f"##{letter}" for letter in letters if letter.isalnum()), *sorted(every)]


def on_white(path: Path) -> Image.Image:
    """SIDE x SIDE, the whole picture in the middle."""
    picture = Image.open(path).convert("RGBA")
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("pictures", type=Path, help="png/128 of noto-emoji")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    options = parser.parse_args()
    found = captioned(options.pictures)
    if not found:
        parser.error(f"{options.pictures} has no files such as emoji_u1f344.png")
    held_out = set(parted({key: caption for key, (_, caption) in found.items()}))
    parts = {"train": [k for k in found if k not in held_out], "held-out": [k for k in found if k in held_out]}
    for part, keys in parts.items():
        shutil.rmtree(options.out / part, ignore_errors=True)
        (options.out / part).mkdir(parents=True)
        for key in keys:
            on_white(found[key][0]).save(options.out / part / f"{key}.png")
        lines = (json.dumps({"file_name": f"{key}.png", "text": found[key][1]}) for key in keys)
        (options.out / part / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{len(keys)} pictures in {options.out / part}")
    (options.out / "vocabulary").mkdir(exist_ok=True)
    tokens = vocabulary([found[key][1] for key in parts["train"]])
    (options.out / "vocabulary" / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    print(f"{len(tokens)} tokens in {options.out / 'vocabulary'}")


if __name__ == "__main__":
    main()
