"""Plans of windows: every prediction in one row, the cache never changes the rows."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from megadec.common.errors import ConfigError
from megadec.data.index import DataSet
from megadec.data.windows import BestFitPlan, CutPlan, default_cache_folder, documents_of, plan_windows


@pytest.fixture(scope="module")
def data(tiny_shards: Path) -> DataSet:
    return DataSet.open(tiny_shards)


@pytest.mark.parametrize("sequence_length", [1, 7, 512, 4096, 10**9])
def test_cut_windows_predict_every_token_but_the_first_once(data, sequence_length):
    plan = CutPlan(data, sequence_length)
    pieces = [piece for window in range(plan.windows) for piece in plan.pieces(window)]
    predicted = np.concatenate([np.arange(first + 1, first + 1 + count) for first, count in pieces])
    assert np.array_equal(predicted, np.arange(1, data.tokens))
    assert all(count == sequence_length for _, count in pieces[:-1])


def test_best_fit_windows_predict_every_token_of_every_document_once(data, tmp_path):
    plan = BestFitPlan(data, 256, tmp_path)
    pieces = [piece for window in range(plan.windows) for piece in plan.pieces(window)]
    predicted = np.sort(np.concatenate([np.arange(first + 1, first + 1 + count) for first, count in pieces]))
    tokens = data.tokens_at(0, data.tokens)
    assert np.array_equal(predicted, np.flatnonzero(tokens != data.bos_id))


def test_best_fit_keeps_documents_whole_that_fit_in_a_row(data, tmp_path):
    plan = BestFitPlan(data, 256, tmp_path)
    pieces = {piece for window in range(plan.windows) for piece in plan.pieces(window)}
    for span in data.documents_between(0, data.tokens):
        if span.tokens - 1 <= 256:
            assert (span.first_token, span.tokens - 1) in pieces


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_a_window_knows_the_documents_that_it_reads(data, tmp_path, packing):
    plan = plan_windows(data, 300, packing, tmp_path)
    everything = data.documents_between(0, data.tokens)
    for window in range(plan.windows):
        inputs = {first + step for first, count in plan.pieces(window) for step in range(count)}
        owners = [s for s in everything if not inputs.isdisjoint(range(s.first_token, s.first_token + s.tokens))]
        assert sorted(documents_of(plan, window)) == sorted(owners)


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_a_window_past_the_last_is_an_index_error(data, tmp_path, packing):
    plan = plan_windows(data, 300, packing, tmp_path)
    for window in (-1, plan.windows):
        with pytest.raises(IndexError, match="window"):
            plan.pieces(window)


def rows_of(plan: BestFitPlan) -> list[list[tuple[int, int]]]:
    return [plan.pieces(window) for window in range(plan.windows)]


def test_the_best_fit_plan_is_computed_once_and_read_again(data, tmp_path, monkeypatch):
    rows = rows_of(BestFitPlan(data, 256, tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("megadec.data.windows.pack", lambda *_: pytest.fail("packed again"))
    assert rows_of(BestFitPlan(data, 256, tmp_path)) == rows


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"x" * len(raw)])
def test_a_damaged_cache_is_packed_again(data, tmp_path, damage):
    rows = rows_of(BestFitPlan(data, 256, tmp_path))
    (cache,) = tmp_path.iterdir()
    whole = cache.read_bytes()
    cache.write_bytes(damage(whole))
    assert rows_of(BestFitPlan(data, 256, tmp_path)) == rows
    assert cache.stat().st_size == len(whole)


def test_a_cache_with_one_flipped_byte_is_packed_again(data, tmp_path):
    rows = rows_of(BestFitPlan(data, 256, tmp_path))
    (cache,) = tmp_path.iterdir()
    raw = bytearray(cache.read_bytes())
    raw[len(raw) // 2] ^= 1
    cache.write_bytes(raw)
    assert rows_of(BestFitPlan(data, 256, tmp_path)) == rows


def test_a_cache_folder_that_cannot_be_written_costs_only_the_cache(data, tmp_path, monkeypatch):
    records: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("megadec.data.windows"), "handle", records.append)
    (tmp_path / "file").write_text("in the way")
    plan = BestFitPlan(data, 256, tmp_path / "file" / "cache")
    assert plan.windows > 0
    assert "not kept" in records[0].getMessage()


def test_row_lengths_have_caches_of_their_own(data, tmp_path):
    BestFitPlan(data, 256, tmp_path)
    BestFitPlan(data, 128, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "megadec" / "windows"


def test_an_unknown_packing_and_an_empty_row_are_config_errors(data):
    with pytest.raises(ConfigError, match="packing='first_fit' is unknown; known are cut, best_fit"):
        plan_windows(data, 10, "first_fit")
    with pytest.raises(ConfigError, match="sequence_length=0"):
        plan_windows(data, 0, "cut")
