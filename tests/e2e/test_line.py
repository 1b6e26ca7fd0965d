"""What `make demo` does, shorter and on one rank: from a raw dump to answers over HTTP by the commands of a user.

Two ranks by the launcher are in test_quick_start.py and in the whole demo.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.processes import environment

SHORT = ["--train.steps", "10", "--schedule.warmup_steps", "3", "--evaluate.interval_steps", "10"]


def run_demo(folder: Path, *options: str, finetune: str = "", ranks: int = 2) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(PROJECT / "launch" / "demo.sh"), *options],
        env=environment(DEMO=str(folder), FINETUNE=finetune, RANKS=str(ranks)),
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder and what it printed."""
    folder = tmp_path_factory.mktemp("line") / "demo"
    done = run_demo(folder, *SHORT, finetune="--epochs 0.1", ranks=1)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "OVERFLOW" not in done.stdout + done.stderr, "the dry run is not to look like a step that went wrong"
    return folder, done.stdout


def test_the_line_generates_text(demo: tuple[Path, str]) -> None:
    lines = demo[1].split("== 6. ")[1].splitlines()
    for prompt in ("昨天，", "比赛结束后，"):
        assert any(line.startswith(prompt) for line in lines), prompt


def test_the_last_line_is_what_came_of_it(demo: tuple[Path, str]) -> None:
    found = json.loads(demo[1].splitlines()[-1])
    assert list(found) == ["known_pairs", "accuracy", "seconds"]
    assert 0 < found["known_pairs"] <= 1
    assert found["accuracy"] == json.loads((demo[0] / "classifier.json").read_text())["accuracy"]
    assert (demo[0] / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert "[INFO] [launch.py" not in demo[1], "the launcher's own lines are noise"


def test_the_line_ends_with_a_classified_title_and_an_answer_over_http(demo: tuple[Path, str]) -> None:
    classified, completed = re.findall(r"^POST (/v1/\w+) (\S.*) -> (.*)$", demo[1], re.MULTILINE)
    assert classified[0] == "/v1/classify"
    [result] = json.loads(classified[2])["data"]
    labels = (PROJECT / "samples" / "thucnews" / "titles" / "class.txt").read_text(encoding="utf-8").split()
    assert result["label"] in labels
    assert sum(result["probabilities"].values()) == pytest.approx(1.0, abs=1e-3)
    # After so few steps the text may be empty; that it was answered is what the line says.
    assert completed[:2] == ("/v1/completions", "昨天")


def test_the_loss_falls_on_the_sample_corpus(demo: tuple[Path, str]) -> None:
    lines = (demo[0] / "runs" / "demo" / "metrics.jsonl").read_text().splitlines()
    losses = [record["loss"] for record in map(json.loads, lines) if record["kind"] == "train"]
    assert len(losses) == 10
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.slow
def test_the_whole_demo_is_better_than_chance(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "demo")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["known_pairs"] >= 0.4
    assert found["accuracy"] >= 0.3


def test_the_demo_never_removes_a_folder_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    done = run_demo(tmp_path)
    assert done.returncode == 2
    assert "was not made by the demo" in done.stderr
    assert (tmp_path / "precious").exists()
