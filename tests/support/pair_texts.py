"""Invented pairs that tests share: short texts of a few characters, and what a task makes of them."""

import random
from pathlib import Path

CHARACTERS = "种下了一棵柿子树在河边的老周"


def texts(count: int, longest: int = 6, seed: int = 0) -> list[str]:
    """Different texts of 2 to `longest` characters."""
    chance, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        found["".join(chance.choice(CHARACTERS) for _ in range(chance.randint(2, longest)))] = None
    return list(found)


def write_pairs(path: Path, sources: list[str], task: str) -> Path:
    """`source<TAB>target` lines, where the target is the source ("copy") or the source backwards ("reverse")."""
    step = {"copy": 1, "reverse": -1}[task]
    path.write_text("".join(f"{text}\t{text[::step]}\n" for text in sources), encoding="utf-8")
    return path
