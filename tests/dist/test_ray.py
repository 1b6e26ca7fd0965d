"""Training on a Ray cluster of two nodes, through its job server, as a user of a real cluster does it."""

import json
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from megadec.common.errors import ConfigError
from megadec.common.processes import free_port, session_of
from megadec.corpus.document import read_documents
from megadec.corpus.prepare import main as prepare
from megadec.engine.runs.pretrain import PretrainRun
from megadec.ray.submit import entrypoint
from megadec.ray.submit import main as ray_submit
from megadec.ray.train import RayRun
from megadec.ray.train import main as ray_train
from tests.support.processes import DEADLINE_SECONDS, environment, errors_of, run_script, running, wait_until
from tests.support.tiny_runs import ENDLESS, NO_EVALUATION, TinyRuns

# With tokens wanted by the one and not sent by the other, head and job server would not understand each other.
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A machine that others load is slow, not dead.
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_failure_threshold": "60",
}
STEPS = 24
CHINESE = "云上试验"  # which Ray cannot be told
SECTIONS = {"train": {"steps": STEPS}, "checkpoint": {"interval_steps": 4, "keep_last": 9}}


@dataclass(frozen=True)
class Cluster:
    """Two nodes of one CPU each: the command of each (which stays), and where the cluster is reached."""

    nodes: tuple[subprocess.Popen[bytes], ...]
    address: str
    job_server: str

    def workers(self) -> list[psutil.Process]:
        """The processes that train, on all nodes."""
        found = [p for node in self.nodes for p in psutil.Process(node.pid).children(recursive=True)]
        return [p for p in found if p.is_running() and "RayTrainWorker" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with two_nodes() as nodes:
        yield nodes


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    # The path of a socket below it may have 107 bytes at most: pytest's folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    port, dashboard = free_port(), free_port()
    address, log = f"127.0.0.1:{port}", folder / "head.log"
    first = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    try:
        with standing_node([*first, f"--temp-dir={folder}"], log) as head:
            wait_until(lambda: listens(dashboard), "the job server", log, pause=0.5)
            with standing_node([f"--address={address}"], folder / "node.log") as node:
                yield Cluster((head, node), address, f"http://127.0.0.1:{dashboard}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def standing_node(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`ray start` in the foreground, when it stands. Ray gives a node 30 seconds, too few on a loaded machine."""
    # The raylet gives helpers that look for ports of their own 15 seconds, too few where others load the machine.
    helpers = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
    usual = ["ray", "start", "--block", "--num-cpus=1", "--object-store-memory=100000000", *arguments]
    for _ in range(5):
        command = [*usual, *(f"--{helper}-port={free_port()}" for helper in helpers)]
        with running(command, log, env=environment(**RAY_ENVIRONMENT)) as process:
            wait_until(
                lambda: process.poll() is not None or "will now block" in log.read_text(), "a node", log, pause=0.5
            )
            if process.poll() is None:
                yield process
                return
    raise AssertionError(f"no node of a Ray cluster would start: {log.read_text()[-4000:]}")


def listens(port: int) -> bool:
    with socket.socket() as listener:
        return listener.connect_ex(("127.0.0.1", port)) == 0


def submit(cluster: Cluster, *command: object, options: tuple[str, ...] = ()) -> tuple[Any, ...]:
    return ("launch/submit.py", "--address", cluster.job_server, *options, "--", *command)


def begun(log: Path, script: object, *arguments: object, **options: Any) -> Any:
    """A script that runs while the test goes on."""
    command = [sys.executable, str(script), *map(str, arguments)]
    return running(command, log, env=environment(**RAY_ENVIRONMENT), **options)


def test_a_cluster_trains_with_the_losses_of_ranks_without_one_and_a_killed_worker_is_replaced(
    cluster: Cluster, tmp_path: Path, runs: TinyRuns
) -> None:
    log = tmp_path / "log"
    # What refuses a folder that holds a run must not refuse the run's own when a worker begins again.
    request = [*runs.command(CHINESE, **SECTIONS), "--workers", 2, "--checkpoint.resume", "none"]
    with begun(log, *submit(cluster, "launch/ray_train.py", *request)) as process:
        wait_until(lambda: len(runs.metrics(CHINESE)) >= 10 or process.poll() is not None, "the tenth step", log)
        victims = cluster.workers()
        assert len(victims) == 2, log.read_text()[-4000:]
        victims[1].send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_SECONDS) == 0, log.read_text()[-4000:]
    said, folder, last = log.read_text(), runs.of(CHINESE), runs.checkpoint(CHINESE, STEPS)
    assert "restart 1 of 3" in said
    assert f"going on from {folder}/checkpoints/step_" in said
    assert f"saved {last}" in said
    runs.train(runs.training("without", **SECTIONS))
    assert runs.losses(CHINESE) == runs.losses("without")
    # What Ray knows is our own checkpoint where it lies, not a copy.
    known = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())["latest_checkpoint_result"]
    assert known["checkpoint_dir_name"] == f"checkpoints/{last.name}"
    assert known["metrics"]["loss"] == runs.losses(CHINESE)[-1]


@pytest.mark.slow
def test_a_signal_to_a_worker_or_to_the_command_ends_the_run_with_a_checkpoint_and_status_0(
    cluster: Cluster, tmp_path: Path, runs: TinyRuns
) -> None:
    folder, log = runs.of("asked"), tmp_path / "log"
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    command = ["launch/ray_train.py", *runs.command("asked", train=ENDLESS, evaluate=NO_EVALUATION), "--workers", "2"]
    told = f"{folder}/stop was made"
    for asked, number, reason in (
        ("worker", signal.SIGTERM, "SIGTERM"),
        ("command", signal.SIGTERM, told),
        ("command", signal.SIGINT, told),
    ):
        before = len(runs.metrics("asked"))
        with begun(log, *command, "--address", cluster.address, **heard) as process:
            wait_until(lambda n=before: len(runs.metrics("asked")) >= n + 3, "three steps", log)  # type: ignore[misc]
            victim = cluster.workers()[1] if asked == "worker" else process
            victim.send_signal(number)
            assert process.wait(DEADLINE_SECONDS) == 0, log.read_text()[-4000:]
        said = log.read_text()
        assert "restart" not in said
        assert not re.search(r"^\S*\(RayTrainWorker[^)]*\)\S*\s*$", said, re.MULTILINE), "a worker's empty line"
        assert reason in said or "another rank asked" in said
        last = len(runs.metrics("asked"))
        assert f"saved {runs.checkpoint('asked', last)}" in said
        assert f"stopped at step {last}" in said
    assert not (folder / "stop").exists()


def test_a_job_that_cannot_be_placed_shows_in_its_log_what_it_asked_for_and_its_status_is_passed_on(
    cluster: Cluster, runs: TinyRuns
) -> None:
    asked = ["--workers", "4", "--placement_seconds", "3"]
    done = run_script(*submit(cluster, "launch/ray_train.py", *runs.command("large"), *asked), **RAY_ENVIRONMENT)
    assert done.returncode == 2, done.stdout[-4000:] + done.stderr
    assert done.stdout.count("error: no room for --workers=4, each with 1 CPU on one node") == 1
    assert "the cluster of 2 node(s) has 2 CPU" in done.stdout


def test_a_job_gets_folder_and_variables_and_may_save_when_ctrl_c_stops_it(cluster: Cluster, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, time; print(os.getcwd(), os.environ['A'] + os.environ['B'], '完', flush=True);"
        # Longer than the three seconds that Ray would give it to save.
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(4), open('saved', 'w'), sys.exit())); time.sleep(999)"
    )
    options = ("--working_dir", str(tmp_path), "--env", "A=x=1", "--env", "B=y z")
    log = tmp_path / "log"
    # A shell that runs the tests in the background lets them, and what they start, ignore it.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with begun(log, *submit(cluster, "-c", program, options=options), **heard) as process:
        wait_until(lambda: f"\n{tmp_path} x=1y z 完\n" in log.read_text(), "the job's first line", log)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 1, log.read_text()
    assert "was stopped" in log.read_text()
    assert (tmp_path / "saved").exists()


def test_a_folder_that_the_head_node_does_not_have_is_one_line_and_status_2() -> None:
    done = subprocess.run(["sh", "-c", entrypoint(Path("/nowhere/at all"), ["true"])], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(b"error: /nowhere/at all does not exist on the cluster's head node")
    assert not done.stderr


class Locked(BaseHTTPRequestHandler):
    """A job server that asks for a token, as Ray's does: its client makes the same error of it."""

    def do_GET(self) -> None:
        self.send_error(401, "Unauthorized: Missing authentication token")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_cluster_that_wants_a_token_is_told_to_the_last_word_of_the_remedy() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = run_script(*submit(Cluster((), "", f"http://127.0.0.1:{server.server_port}"), "x"), **RAY_ENVIRONMENT)
        server.shutdown()
    assert done.returncode == 2
    [said] = errors_of(done.stderr)
    assert "Authentication required" in said
    assert "RAY_AUTH_TOKEN" in said
    assert said.endswith("token-auth.html)")


def test_the_help_has_rays_own_options_and_a_slip_is_told_the_nearest_of_them(
    runs: TinyRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ray_train(["--help"])
    listed = capsys.readouterr().out
    for field in fields(RayRun):
        if field.name not in {one.name for one in fields(PretrainRun)}:
            assert f"\n  --{field.name} " in listed
    with pytest.raises(ConfigError, match=r"--worker \(did you mean 'workers'"):
        ray_train([*runs.command("slip"), "--worker", "2"])


@mock.patch.dict("os.environ")  # the commands set variables for Ray
def test_an_address_where_no_cluster_is_is_named(runs: TinyRuns) -> None:
    usual, nobody = runs.command("lost"), f"127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=f"--address={nobody}: no Ray cluster answers"):
        ray_train([*usual, "--address", nobody])
    with pytest.raises(ConfigError, match=f"--address=http://{nobody}: no job server of a Ray cluster answers"):
        ray_submit(["--address", f"http://{nobody}", "--", "launch/ray_train.py", *usual])


def prepared_from(folder: Path, texts: list[Path], tokenizer: Path, source: str = "jsonl") -> list[object]:
    """A request of the corpus line, whose input is a piece a file."""
    return [
        "--source", source, "--input", *texts, "--tokenizer", tokenizer, "--documents", folder / "documents",
        "--output", folder / "shards",
    ]  # fmt: skip


def written_texts(folder: Path, files: int, documents: int, characters: int) -> list[Path]:
    chance, paths = random.Random(0), []
    for number in range(files):
        texts = ("".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(characters)) for _ in range(documents))
        rows = [{"id": f"{number}-{n}", "text": f"{text}。"} for n, text in enumerate(texts)]
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return paths


def written_dumps(folder: Path, files: int, documents: int) -> list[Path]:
    """Dumps whose pages name a group of words."""
    chance, paths = random.Random(0), []
    for number in range(files):
        texts = ("".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(80)) for _ in range(documents))
        pages = (
            f"<page><title>条目{number}-{n}</title><ns>0</ns><id>{number}{n}</id><revision><id>1</id>"
            f"<text>{{{{NoteTA|G1=试验}}}}{text}，点击软件。</text></revision></page>"
            for n, text in enumerate(texts)
        )
        paths.append(folder / f"{number}.xml")
        paths[-1].write_text(f"<mediawiki>{''.join(pages)}</mediawiki>", encoding="utf-8")
    return paths


def results_in(folder: Path) -> dict[str, bytes]:
    """All files but those that say where they lie and how many workers there were."""
    names = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".report.json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def test_a_cluster_prepares_a_corpus_with_the_bytes_of_one_process_and_the_user_s_conversion_groups(
    cluster: Cluster, tmp_path: Path, tiny_tokenizer_path: Path
) -> None:
    dumps, groups = written_dumps(tmp_path, files=6, documents=9), tmp_path / "groups.txt"
    groups.write_text("[试验]\nzh-cn:软件;zh-tw:軟仔;\n", encoding="utf-8")
    wanted = ["--variant", "zh-Hant", "--conversion_groups", groups, "--filter.rules", "none"]
    alone = [*prepared_from(tmp_path / "alone", dumps, tiny_tokenizer_path, "zhwiki"), *wanted, "--workers", 1]
    prepare([*map(str, alone)])
    request = [*prepared_from(tmp_path / "cluster", dumps, tiny_tokenizer_path, "zhwiki"), *wanted]
    done = run_script("launch/ray_prepare.py", *request, "--address", cluster.address, **RAY_ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert results_in(tmp_path / "cluster") == results_in(tmp_path / "alone")
    texts = [document.text for document in read_documents([tmp_path / "cluster" / "documents" / "zhwiki.parquet"])]
    assert len(texts) == 6 * 9
    assert all("點擊軟仔" in text for text in texts)


@pytest.mark.slow
def test_a_node_that_is_lost_costs_the_pieces_that_it_was_at(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    texts = written_texts(tmp_path, files=16, documents=300, characters=1500)
    prepare([*map(str, prepared_from(tmp_path / "alone", texts, tiny_tokenizer_path)), "--workers", "2"])
    with two_nodes() as cluster:
        request = [*prepared_from(tmp_path / "cluster", texts, tiny_tokenizer_path), "--address", cluster.address]
        log, work = tmp_path / "log", tmp_path / "cluster" / ".shards.work"
        with begun(log, "launch/ray_prepare.py", *request) as process:
            wait_until(
                lambda: len(list(work.glob("piece-??????.json"))) >= 3 or process.poll() is not None, "pieces", log
            )
            assert process.poll() is None, log.read_text()[-4000:]
            for lost in session_of(cluster.nodes[1].pid):
                lost.kill()
            status = process.wait(DEADLINE_SECONDS)
        if status != 0:  # Ray gave the pieces up: the same command goes on
            done = run_script("launch/ray_prepare.py", *request, **RAY_ENVIRONMENT)
            assert done.returncode == 0, done.stderr[-4000:]
    assert results_in(tmp_path / "cluster") == results_in(tmp_path / "alone")
