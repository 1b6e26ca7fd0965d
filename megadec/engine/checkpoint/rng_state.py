"""What this process would draw next, from torch, Python and numpy: kept in a checkpoint, restored from it.

The loop seeds torch anew at every step from (seed, step, rank), so what a step draws does not depend on this; it keeps
what was drawn outside of steps. At another number of ranks the first ranks go on as they were, and those that were not
there begin as any new process; what a step draws (dropout, where a model has some) then differs, for it falls on other
sequences.
"""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch


def random_file(rank: int) -> str:
    """Where a rank's state lies below a checkpoint."""
    return f"rng_rank_{rank:04d}.pt"


def random_state() -> bytes:
    """The state as it is now."""
    numpy_state: Any = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "python": [version, list(words), gauss],
        "numpy": [numpy_state[0], torch.from_numpy(numpy_state[1].astype(np.int64)), *numpy_state[2:]],
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def restore_random_state(checkpoint: Path, rank: int) -> None:
    """Take up the state of this rank; nothing where there was no such rank."""
    file = checkpoint / random_file(rank)
    if not file.is_file():
        return
    state = torch.load(file, weights_only=True)
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
