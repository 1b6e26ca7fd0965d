"""The work folder: one owner, gone on with by the same run only, and gone when the run has ended well."""

import logging
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, InputError, StorageError
from megadec.corpus.work import commit, content_of, open_work, staged

MANIFEST = {"options": {"variant": "keep", "name": ""}}


def leave(folder: Path, error: BaseException, manifest: dict = MANIFEST) -> None:
    """A run that has done a piece and ends with an error."""
    with pytest.raises(type(error)), open_work(folder, manifest) as (work, _):
        work.counts(0).write_text("{}")
        raise error


def test_a_run_that_ended_well_leaves_nothing(tmp_path: Path) -> None:
    with open_work(tmp_path / "work", MANIFEST) as (work, committing):
        work.counts(0).write_text("{}")
        assert not committing
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StorageError("the disk is full"), ZeroDivisionError()])
def test_what_was_done_stays_for_the_same_run(tmp_path: Path, error: BaseException) -> None:
    leave(tmp_path / "work", error)
    with open_work(tmp_path / "work", MANIFEST) as (work, _):
        assert work.counts(0).exists()


def test_an_error_of_the_request_leaves_nothing(tmp_path: Path) -> None:
    leave(tmp_path / "work", InputError("a.csv: no such file"))
    assert not list(tmp_path.iterdir())


def test_another_run_begins_anew_and_says_what_differs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave(tmp_path / "work", KeyboardInterrupt())
    caplog.set_level(logging.INFO)
    logging.getLogger("megadec").propagate = True
    with open_work(tmp_path / "work", {"options": {"variant": "zh-Hant", "name": ""}}) as (work, _):
        assert not work.counts(0).exists()
    assert "is of another run (options variant: keep before, zh-Hant now); this one begins anew" in caplog.text


def test_a_work_folder_has_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megadec.corpus.work.WAIT_SECONDS", 0.0)
    with (
        open_work(tmp_path / "work", MANIFEST),
        pytest.raises(ConfigError, match="belongs to a run that works now"),
        open_work(tmp_path / "work", MANIFEST),
    ):
        raise AssertionError("two owners")


def test_results_that_had_no_name_yet_when_the_run_was_ended_get_it_later(tmp_path: Path) -> None:
    results = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path in results:
        staged(path).write_text(path.name)
    with pytest.raises(KeyboardInterrupt), open_work(tmp_path / "work", MANIFEST) as (work, _):
        work.counts(0).write_text("{}")
        commit(work, results)
        results[1].rename(staged(results[1]))  # as if it had been ended before the last one
        raise KeyboardInterrupt
    with open_work(tmp_path / "work", MANIFEST) as (work, committing):
        assert committing
        commit(work, results)
    assert [path.read_text() for path in results] == ["a.parquet", "b.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_the_content_of_a_folder_changes_with_any_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("一")
    before = content_of(tmp_path)
    (tmp_path / "in" / "a.txt").write_text("一二")
    assert content_of(tmp_path) != before
