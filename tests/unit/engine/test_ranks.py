"""A process alone is a group of one, and a lost peer is said to be lost."""

import pytest
import torch

from megadec.common.errors import TrainingError
from megadec.engine.ranks import Ranks, lost_ranks


def test_alone_every_collective_gives_back_what_it_was_given() -> None:
    alone = Ranks(0, 1, torch.device("cpu"))
    alone.barrier()
    assert alone.sum_over_ranks([1.0, 2.5]) == [1.0, 2.5]
    assert alone.broadcast({"a": 1}) == {"a": 1}
    assert alone.all_gather("x") == ["x"]


@pytest.mark.parametrize("words", ["Connection closed by peer", "[gloo] read timeout", "NCCL communicator was aborted"])
def test_what_the_transport_says_of_a_lost_peer_becomes_our_error(words: str) -> None:
    with pytest.raises(TrainingError, match="another rank was lost while adding"), lost_ranks("adding"):
        raise RuntimeError(words)


def test_an_error_of_another_kind_is_not_taken_for_a_lost_peer() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), lost_ranks("adding"):
        raise RuntimeError("shapes differ")
