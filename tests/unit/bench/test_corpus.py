"""The bench of the corpus runs on what it is given: figures by name, and peers that are missing are named."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from bench import corpus
from tests.support import PROJECT


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(corpus, "QUICK_BYTES", 500_000)
    (tmp_path / "zhwiki").mkdir()
    shutil.copy(PROJECT / "samples" / "zhwiki" / "sample-pages-articles.xml.bz2", tmp_path / "zhwiki")
    law = tmp_path / "法.md"
    law.write_text(
        "# 某法\n" + "".join(f"第{n}条 为了规范第{n * 7919 % 997}类活动，制定本条的规定。\n" for n in range(60)),
        "utf-8",
    )
    (tmp_path / "laws").mkdir()
    with tarfile.open(tmp_path / "laws" / "laws.tar.xz", "w:xz") as tar:
        tar.add(law, "法.md")
    return tmp_path


def bars_of(data: Path, figure: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[dict, list]:
    corpus.main(["--data", str(data), "--quick", "true", "--only", figure, *more])
    printed = json.loads(capsys.readouterr().out)
    return printed["bars"], printed["missing"]


def test_a_peer_that_is_not_installed_is_named_and_its_bar_left_out(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # `false` is a Python that has no package.
    bars = bars_of(data, "extraction", capsys, "--wikiextractor_python", shutil.which("false") or "false")
    assert bars == ({}, ["wikiextractor"])


def test_tokenizing_is_compared_with_the_plain_loop(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars, missing = bars_of(data, "tokenizing", capsys)
    assert bars["tokenizing_vs_sentencepiece"] > 0
    assert not missing


@pytest.mark.slow
def test_memory_is_that_of_the_command_and_of_its_workers(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars, _ = bars_of(data, "memory", capsys)
    assert 0.3 < bars["command_memory_growth"] < 3
    assert 0.3 < bars["worker_memory_growth"] < 3


def test_every_copy_of_the_pages_has_a_title_of_its_own(data: Path, tmp_path: Path) -> None:
    given = corpus.Given(corpus.CorpusBenchOptions(data, quick=True), tmp_path)
    text = corpus.repeated_dump(given).read_text("utf-8")
    titles = [line for line in text.splitlines() if "<title>" in line]
    assert len(titles) == len(set(titles)) > 100
