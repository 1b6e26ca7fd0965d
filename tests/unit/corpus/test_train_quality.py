"""Training the classifier of quality: figures on held-out examples, the same file each time, clear errors."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError, InputError
from megadec.corpus.document import read_documents
from megadec.corpus.quality.classifier import load_classifier
from megadec.corpus.train_quality import TrainQualityOptions, measure, share, train_quality

CLAUSES = ("清晨的雾从河面上升起来", "船夫把缆绳解开", "慢慢向对岸划去", "岸边的集市热闹了")
NAMES = ("公园里的老人", "隔壁的学生", "远方的客人", "山上的僧人", "桥头的孩子", "城里的医生")


def good(chance: random.Random) -> str:
    return "".join(f"{chance.choice(NAMES)}说，{chance.choice(CLAUSES)}，{chance.choice(CLAUSES)}。" for _ in range(4))


def bad(chance: random.Random) -> str:
    return "".join(chance.sample(text := good(chance), len(text)))


@pytest.fixture
def examples(tmp_path: Path) -> dict[str, Any]:
    """100 texts of each side; one of them stands on both."""
    chance = random.Random(0)
    for name, make in (("good", good), ("bad", bad)):
        lines = [json.dumps({"text": make(chance)}, ensure_ascii=False) for _ in range(100)]
        lines.append(json.dumps({"text": "两边都有的一段话，不知道是好是坏。"}, ensure_ascii=False))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"good": (tmp_path / "good.jsonl",), "bad": (tmp_path / "bad.jsonl",), "output": tmp_path / "q.safetensors"}


def test_it_tells_good_from_bad_and_says_how_well(examples: dict[str, Any]) -> None:
    made = train_quality(TrainQualityOptions(**examples))
    chance = random.Random(1)
    assert min(made.score(good(chance)) for _ in range(20)) > 0.5 > max(made.score(bad(chance)) for _ in range(20))
    record = load_classifier(examples["output"]).record
    assert (record["learned"], record["in_both_and_left_out"]) == ({"good": 80, "bad": 80}, 1)
    assert (record["held_out"]["good"], record["held_out"]["bad"]) == (20, 20)
    [row] = [row for row in record["held_out"]["thresholds"] if row["threshold"] == 0.5]
    assert row["precision"] == row["recall"] == row["bad_dropped"] == [1.0, 0.8389, 1.0]


def test_the_same_examples_in_any_order_give_the_same_file(examples: dict[str, Any], tmp_path: Path) -> None:
    train_quality(TrainQualityOptions(**examples, max_examples=50))
    lines = examples["good"][0].read_text(encoding="utf-8").split("\n")
    examples["good"][0].write_text("\n".join(reversed(lines)), encoding="utf-8")
    again = examples | {"output": tmp_path / "again.safetensors"}
    made = train_quality(TrainQualityOptions(**again, max_examples=50))
    assert made.record["learned"] == {"good": 40, "bad": 40}
    assert again["output"].read_bytes() == examples["output"].read_bytes()
    other = train_quality(TrainQualityOptions(**again, max_examples=50, seed=1, overwrite=True))
    assert other.sha256 != made.sha256


def test_a_threshold_s_figures_are_shares_with_their_intervals() -> None:
    figures = measure(np.array([0.95, 0.8, 0.55, 0.2]), np.array([0.6, 0.1]))
    assert figures["area_under_roc"] == pytest.approx(6 / 8)
    [row] = [row for row in figures["thresholds"] if row["threshold"] == 0.5]
    assert [row[name][0] for name in ("precision", "recall", "bad_dropped")] == [0.75, 0.75, 0.5]
    assert share(81, 263) == [0.308, 0.2553, 0.3662]  # Newcombe (1998), table I
    assert share(0, 20) == [0.0, 0.0, 0.1611]
    assert share(0, 0) is None


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"output": Path("q.bin")}, ConfigError, "does not end in .safetensors"),
        ({"good": ()}, ConfigError, "good: no file"),
        ({"good": (Path("none.jsonl"),)}, InputError, "none.jsonl: no such file"),
        ({"held_out_fraction": 0.0}, ConfigError, "held_out_fraction=0.0 is not above 0"),
        ({"max_examples": 3}, ConfigError, "max_examples=3"),
        ({"bad_source": "jsnl"}, ConfigError, "did you mean 'jsonl'"),
        ({"held_out_fraction": 0.01}, InputError, "good: 99 examples to learn from and 1 held out"),
    ],
)
def test_a_wrong_request_is_named_and_nothing_is_written(
    examples: dict[str, Any], tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        train_quality(TrainQualityOptions(**(examples | change)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]


def test_the_same_file_as_good_and_bad_is_called_so(examples: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="101 stood on both sides"):
        train_quality(TrainQualityOptions(**(examples | {"bad": examples["good"]})))


def test_prepare_drops_what_the_classifier_takes_for_bad(
    examples: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [word for side in ("good", "bad") for word in (f"--{side}", str(examples[side][0]))]
    run_verb(["train-quality", *sides, "--output", str(examples["output"])])
    assert "measured on 20 good and 20 bad ones" in capsys.readouterr().out
    chance = random.Random(2)
    texts = [make(chance) for _ in range(5) for make in (good, bad)]
    raw, documents = tmp_path / "raw.jsonl", tmp_path / "kept.parquet"
    raw.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    asked = ["--filter.rules", "none", "--filter.classifier", str(examples["output"]), "--filter.min_quality", "0.5"]
    places = ["--input", str(raw), "--documents", str(documents)]
    run_verb(["prepare", "--source", "jsonl", "--workers", "1", *places, *asked])
    assert [document.text for document in read_documents([documents])] == texts[::2]
    report = json.loads((tmp_path / "kept.report.json").read_text(encoding="utf-8"))["report"]
    recorded = json.loads((tmp_path / "kept.report.json").read_text(encoding="utf-8"))["classifier"]
    assert recorded == {"sha256": load_classifier(examples["output"]).sha256} | recorded
    assert recorded["held_out"]["area_under_roc"] == 1.0
    assert report["dropped"]["low_quality"]["documents"] == 5
    [counts] = report["sources"].values()
    scores = {name: count for name, count in counts["measured"].items() if name.startswith("quality from ")}
    assert sum(scores.values()) == 10
    assert sum(count for name, count in scores.items() if float(name.split()[-1]) >= 0.5) == 5
