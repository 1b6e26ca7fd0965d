"""Plans of windows: every prediction in one row, the cache never changes the rows."""

import logging

import numpy as np
import pytest

from megadec.common.errors import ConfigError
from megadec.data import windows
from megadec.data.windows import BestFitPlan, CutPlan, WindowPlan, plan_windows


def predicted_by(plan: WindowPlan) -> np.ndarray:
    """The tokens that the windows of a plan predict."""
    pieces = [piece for window in range(plan.windows) for piece in plan.pieces(window)]
    return np.concatenate([np.arange(first + 1, first + 1 + count) for first, count in pieces])


@pytest.mark.parametrize("sequence_length", [1, 7, 512, 4096, 10**9])
def test_cut_windows_predict_every_token_but_the_first_once(data, sequence_length):
    plan = CutPlan(data, sequence_length)
    assert np.array_equal(predicted_by(plan), np.arange(1, data.tokens))
    assert all(plan.pieces(window)[0][1] == sequence_length for window in range(plan.windows - 1))


def test_best_fit_windows_predict_every_token_of_every_document_once(data, plan_cache):
    tokens = data.tokens_at(0, data.tokens)
    assert np.array_equal(np.sort(predicted_by(BestFitPlan(data, 256))), np.flatnonzero(tokens != data.bos_id))


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
@pytest.mark.parametrize("sequence_length", [16, 300])
def test_a_window_knows_the_documents_that_it_reads_and_a_document_its_windows(
    data, plan_cache, packing, sequence_length
):
    plan = plan_windows(data, sequence_length, packing)
    everything = data.documents_between(0, data.tokens)
    held: dict[str, list[int]] = {}
    for window in range(plan.windows):
        inputs = [(first, first + count) for first, count in plan.pieces(window)]
        owners = [s for s in everything if any(s.first_token < b and s.first_token + s.tokens > a for a, b in inputs)]
        assert sorted(plan.documents_of(window)) == sorted(owners)
        for span in owners:
            held.setdefault(span.id, []).append(window)
    assert held == {span.id: plan.windows_with(span) for span in everything}


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_a_window_past_the_last_is_an_index_error(data, plan_cache, packing):
    plan = plan_windows(data, 300, packing)
    for window in (-1, plan.windows):
        with pytest.raises(IndexError, match="window"):
            plan.pieces(window)


def rows_of(plan: WindowPlan) -> list[list[tuple[int, int]]]:
    return [plan.pieces(window) for window in range(plan.windows)]


def test_the_best_fit_plan_of_each_length_is_computed_once_and_read_again(data, plan_cache, monkeypatch):
    rows = {length: rows_of(BestFitPlan(data, length)) for length in (256, 128)}
    assert len(list(plan_cache.iterdir())) == 2
    monkeypatch.setattr(windows, "pack", lambda *_: pytest.fail("packed again"))
    assert {length: rows_of(BestFitPlan(data, length)) for length in (256, 128)} == rows


def flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"x" * len(raw), flipped]
)
def test_a_damaged_cache_is_packed_again(data, plan_cache, damage):
    rows = rows_of(BestFitPlan(data, 256))
    (cache,) = plan_cache.iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert rows_of(BestFitPlan(data, 256)) == rows
    assert cache.stat().st_size == len(whole)


def test_a_cache_folder_that_cannot_be_written_costs_only_the_cache(data, plan_cache, monkeypatch):
    records: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("megadec.data.windows"), "handle", records.append)
    plan_cache.write_text("in the way")
    assert BestFitPlan(data, 256).windows > 0
    assert "not kept" in records[0].getMessage()


def test_the_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert windows.default_cache_folder() == tmp_path / "megadec" / "windows"


def test_an_unknown_packing_and_an_empty_row_are_config_errors(data):
    with pytest.raises(ConfigError, match="packing='first_fit' is unknown; known are cut, best_fit"):
        plan_windows(data, 10, "first_fit")
    with pytest.raises(ConfigError, match="sequence_length=0"):
        plan_windows(data, 0, "cut")
