"""The line of tools/prepare.py in real processes: ended at any moment and started again, it gives the same bytes."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from megadec.common.processes import session_of
from megadec.corpus.prepare import main as prepare
from tests.support.processes import environment, errors_of, run_script, running, wait_until

FILES, DOCUMENTS = 12, 60
Disturb = Callable[[subprocess.Popen[bytes]], None]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files that are a piece each: articles, some of which stand twice, some nearly, some dropped."""
    chance = random.Random(0)
    folder = tmp_path_factory.mktemp("raw")
    articles: list[str] = []
    paths = []
    for number in range(FILES):
        rows = []
        for _ in range(DOCUMENTS):
            article = "".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(800)) + "。"
            before = chance.choice(articles) if articles else article
            articles.append(article)
            rows.append(chance.choice([article] * 6 + [before, before[:-9] + "全文完。", "短。", f"<p>{article}</p>"]))
        paths.append(folder / f"{number:02d}.jsonl")
        lines = (json.dumps({"id": f"{number}-{n}", "text": row}, ensure_ascii=False) for n, row in enumerate(rows))
        paths[-1].write_text("\n".join(lines), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def undisturbed(
    texts: list[Path], tiny_tokenizer_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What one process makes of them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare([*map(str, arguments(texts, tiny_tokenizer_path, folder, 1))])
    return made_in(folder)


def arguments(texts: list[Path], tokenizer: Path, folder: Path, workers: int) -> list[object]:
    places = ["--documents", folder / "documents", "--output", folder / "shards", "--held-out", folder / "held-out"]
    return [
        "--source", "jsonl", "--input", *texts, "--tokenizer", tokenizer, *places, "--held_out_fraction", 0.1,
        "--workers", workers,
    ]  # fmt: skip


def made_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, the report without how many workers there were and where results lie."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    name = "documents/jsonl.report.json"
    found[name] = json.dumps(json.loads(found[name])["report"]).encode()
    return found


def done_in(folder: Path, kind: str) -> int:
    return len(list((folder / ".shards.work").glob(f"{kind}-??????.json")))


def disturbed(
    folder: Path, command: list[object], when: Callable[[], bool], disturb: Disturb
) -> tuple[int | None, str]:
    """Start the line, disturb it when the time has come, and wait until every process of it is gone."""
    log = folder.with_suffix(".log")
    told = [sys.executable, "tools/prepare.py", *map(str, command)]
    with running(told, log, env=environment(TMPDIR=str(folder.with_suffix(".tmp")))) as process:
        wait_until(lambda: when() or process.poll() is not None, "the moment", log, pause=0.005)
        if process.poll() is None:
            disturb(process)
        process.wait()
        wait_until(lambda: not session_of(process.pid), "the end of its workers", log, seconds=20)
    return process.returncode, log.read_text()


def kill_parent(process: subprocess.Popen[bytes]) -> None:
    process.kill()


def kill_worker(process: subprocess.Popen[bytes]) -> None:
    workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    for worker in workers[:1]:
        worker.kill()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)


def goes_on(
    texts: list[Path], tokenizer: Path, folder: Path, when: Callable[[], bool], disturb: Disturb, workers: int = 2
) -> tuple[int, str]:
    """Disturb the line and start it again: how many pieces the second start did, and what the first one said."""
    folder.with_suffix(".tmp").mkdir()
    command = arguments(texts, tokenizer, folder, workers)
    status, said = disturbed(folder, command, when, disturb)
    assert status != 0, said
    kept = done_in(folder, "piece")
    again = run_script("tools/prepare.py", *command, TMPDIR=str(folder.with_suffix(".tmp")))
    assert again.returncode == 0, again.stderr[-3000:]
    documents = re.findall(r"prepare jsonl: (\d+)doc", again.stderr)[-1]
    assert int(documents) == (FILES - kept) * DOCUMENTS, "a piece that was done was done again"
    assert not list(folder.with_suffix(".tmp").iterdir())
    return FILES - kept, said


def test_after_a_kill_of_the_parent_the_same_command_goes_on_and_gives_the_same_bytes(
    texts: list[Path], tiny_tokenizer_path: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    rest, _ = goes_on(texts, tiny_tokenizer_path, folder, lambda: done_in(folder, "piece") >= 4, kill_parent)
    assert rest < FILES
    assert made_in(folder) == undisturbed


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_one_line_and_the_same_command_goes_on(
    texts: list[Path], tiny_tokenizer_path: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    when = lambda: done_in(folder, "piece") >= 2  # noqa: E731
    _, said = goes_on(texts, tiny_tokenizer_path, folder, when, kill_worker, workers=4)
    [error] = errors_of(said)
    assert "a worker process ended" in error
    assert made_in(folder) == undisturbed


def test_a_stop_by_sigterm_says_how_to_go_on_and_a_settled_piece_is_not_settled_again(
    texts: list[Path], tiny_tokenizer_path: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    rest, said = goes_on(texts, tiny_tokenizer_path, folder, lambda: done_in(folder, "settled") >= 3, stop)
    assert rest == 0
    [error] = errors_of(said)
    assert error == "error: stopped by SIGTERM; the same command goes on with what is done"
    assert made_in(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ended_at_any_moment_and_started_again_it_gives_the_same_bytes(
    texts: list[Path], tiny_tokenizer_path: Path, undisturbed: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    folder, kind, done = tmp_path / "made", chance.choice(["piece", "settled"]), chance.randrange(1, FILES + 1)
    folder.with_suffix(".tmp").mkdir()
    command = arguments(texts, tiny_tokenizer_path, folder, 2)
    disturb = chance.choice([kill_parent, kill_worker, stop])

    def later(process: subprocess.Popen[bytes]) -> None:
        time.sleep(chance.uniform(0, 1))
        if process.poll() is None:
            disturb(process)

    disturbed(folder, command, lambda: done_in(folder, kind) >= done, later)
    if not (folder / "shards").exists():
        again = run_script("tools/prepare.py", *command)
        assert again.returncode == 0, again.stderr[-3000:]
    assert made_in(folder) == undisturbed
