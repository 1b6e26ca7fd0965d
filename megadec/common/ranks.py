"""Which process this is among its peers, read from the environment that every launcher sets.

deepspeed, torchrun and Ray Train all set RANK, LOCAL_RANK and WORLD_SIZE. Reading them (rather than torch.distributed)
works before the process group exists and in packages that do not import torch.
"""

import os

from megadec.common.errors import ConfigError


def _integer(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"environment variable {name}={text!r}: an integer is expected") from error


def rank() -> int:
    """This process's number among all, from 0."""
    return _integer("RANK", 0)


def local_rank() -> int:
    """This process's number on its machine, from 0."""
    return _integer("LOCAL_RANK", 0)


def world_size() -> int:
    """How many processes train together."""
    return _integer("WORLD_SIZE", 1)


def is_first() -> bool:
    """Whether this process is the one that prints and writes for all."""
    return rank() == 0


def local_world_size() -> int:
    """How many processes train on this machine (1 where the launcher does not say); deepspeed calls it LOCAL_SIZE."""
    return _integer("LOCAL_WORLD_SIZE", _integer("LOCAL_SIZE", 1))
