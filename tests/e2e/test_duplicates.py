"""tools/prepare.py on versions of laws, an evaluation set and documents of an earlier run: what stays."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from megadec.cli import run_verb
from megadec.corpus.document import read_documents

CHANCE = random.Random(5)


def article(characters: int = 400) -> str:
    return "".join(chr(CHANCE.randrange(0x4E00, 0x9000)) for _ in range(characters)) + "。"


def amended(text: str) -> str:
    return text[:60] + "修正" + text[62:]


def prepare(folder: Path, name: str, *options: object) -> tuple[list[str], dict[str, Any]]:
    """The ids that stay, and the report."""
    result = folder / f"{name}.parquet"
    read = ("--source", "markdown", "--input", folder / "laws", "--documents", result, "--workers", "1")
    run_verb(["prepare", *map(str, (*read, *options))])
    ids = [document.id for document in read_documents([result])]
    return ids, json.loads(result.with_suffix(".report.json").read_text(encoding="utf-8"))["report"]


@pytest.fixture
def laws(tmp_path: Path) -> Path:
    text, quoted = article(), article()
    texts = {
        "某法(2004-08-28)": text + article(30),
        "某法(2018-10-26)": amended(text),
        "别的法": quoted[:200] + "马斯洛需要层次理论中的最低层次是哪一种需要" + quoted[200:],
        "又一部法": article() + "他提出马斯洛需要层次理论。",
    }
    (tmp_path / "laws").mkdir()
    for name, body in texts.items():
        (tmp_path / "laws" / f"{name}.md").write_text(body, encoding="utf-8")
    (tmp_path / "exam.csv").write_text(",Question,A,B\n0,马斯洛需要层次理论中的最低层次是（ ）哪一种需要,生理,安全\n")
    return tmp_path


def test_of_dated_versions_the_longest_or_the_newest_stays_and_the_clusters_are_listed(laws: Path) -> None:
    ids, report = prepare(laws, "longest")
    assert ids == ["别的法", "又一部法", "某法(2004-08-28)"]
    assert report["dropped"]["near_duplicate"]["documents"] == 1
    newest, _ = prepare(laws, "newest", "--dedup.keep", "newest")
    assert newest == ["别的法", "又一部法", "某法(2018-10-26)"]
    rows = pq.read_table(laws / "newest.duplicates.parquet").to_pylist()
    assert [(row["id"], row["kept"]) for row in rows] == [("某法(2004-08-28)", False), ("某法(2018-10-26)", True)]
    everything, _ = prepare(laws, "all", "--dedup.near", "false")
    assert len(everything) == 4


def test_evaluation_sets_are_kept_out_and_counted_by_name(laws: Path) -> None:
    ids, report = prepare(laws, "clean", "--decontaminate", laws / "exam.csv")
    assert ids == ["又一部法", "某法(2004-08-28)"]
    assert report["dropped"]["contaminated:exam.csv"]["documents"] == 1
    assert "马斯洛需要层次理论中的最低层次是" in json.dumps(report, ensure_ascii=False)


def test_documents_of_earlier_runs_and_what_is_like_them_go(laws: Path) -> None:
    prepare(laws, "earlier", "--include", "*2018*")
    ids, report = prepare(laws, "later", "--dedup.against", laws / "earlier.parquet")
    assert ids == ["别的法", "又一部法"]
    reasons = {reason: counts["documents"] for reason, counts in report["dropped"].items()}
    assert reasons == {"near_duplicate": 1, "duplicate": 1}
