"""The benchmark of attention: its figures follow from its rows."""

import pytest
import torch

from bench.attention import draw_documents, main, squared_lengths
from tests.support.commands import answer


@pytest.mark.parametrize("mean_tokens", [1, 16, 1000])
def test_the_documents_fill_their_rows_and_are_the_same_for_a_seed(mean_tokens: int) -> None:
    documents_BS = draw_documents(3, 200, mean_tokens, seed=4)
    assert torch.equal(documents_BS, draw_documents(3, 200, mean_tokens, seed=4))
    assert (documents_BS[:, 0] == 0).all()
    assert set(documents_BS.diff(dim=1).unique().tolist()) <= {0, 1}


def test_squares_are_those_of_the_runs_within_rows() -> None:
    assert squared_lengths(torch.tensor([[0, 0, 0, 1, 2], [2, 2, 2, 2, 2]])) == 9 + 1 + 1 + 25


def test_it_tells_of_every_case_and_row_length() -> None:
    sizes = ["--tokens=64", "--heads=2", "--kv_heads=1", "--head_size=16", "--rounds=2", "--precision=fp32"]
    result = answer(main, *sizes, "--sequence_length", 16, 32, "--document_tokens", 4)
    assert result["kernel"] == "each"
    for length in ("16", "32"):
        found = result["sequence_length"][length]
        assert set(found["cases"]) >= {"packed_4", "one_document", "causal", "masked"}
        assert found["cases"]["one_document"]["squared_document_tokens"] == 64 * int(length)
        assert found["packed_per_flop"]["packed_4"] > 0
        assert found["error_against_mask"] < 1e-5
    assert result["top_operations"]
