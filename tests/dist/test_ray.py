"""Training on a Ray cluster of two nodes, through its job server, as a user of a real cluster does it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from megadec.common.processes import free_port, session_of
from tests.support import PROJECT
from tests.support.processes import (
    DEADLINE_SECONDS,
    deepspeed,
    environment,
    errors_of,
    losses_of,
    metrics_of,
    run_maker,
    run_script,
    running,
    wait_until,
    zero_maker,
)

SUBMIT = PROJECT / "launch" / "submit.py"
RAY_TRAIN = PROJECT / "launch" / "ray_train.py"
# With tokens wanted by the one and not sent by the other, head and job server would not understand each other.
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A machine that others load is slow, not dead.
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_failure_threshold": "60",
}
Make = Callable[..., Path]
STEPS = 24
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
    # The path of a socket below it may have 107 bytes at most: pytest's folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    port, dashboard = free_port(), free_port()
    address, log, second_log = f"127.0.0.1:{port}", folder / "head.log", folder / "node.log"
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    nodes = []
    try:
        nodes.append(start_node([*head, f"--temp-dir={folder}"], log))
        wait_until(lambda: listens(dashboard), "the job server", log, pause=0.5)
        nodes.append(start_node([f"--address={address}"], second_log))
        yield Cluster(tuple(nodes), address, f"http://127.0.0.1:{dashboard}")
    finally:
        for node in nodes:
            end_node(node)
        shutil.rmtree(folder, ignore_errors=True)


def start_node(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """`ray start` in the foreground, when it stands. Ray gives a node 30 seconds, too few on a loaded machine."""
    for _ in range(5):
        process = try_node(arguments, log)
        if process.poll() is None:
            return process
        end_node(process)
    raise AssertionError(f"no node of a Ray cluster would start: {log.read_text()[-4000:]}")


def try_node(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    # The raylet gives helpers that look for ports of their own 15 seconds, too few where others load the machine.
    helpers = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
    ports = [f"--{helper}-port={free_port()}" for helper in helpers]
    command = ["ray", "start", "--block", "--num-cpus=1", "--object-store-memory=100000000", *ports, *arguments]
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            command, env=environment(**RAY_ENVIRONMENT), stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is not None or "will now block" in log.read_text(), "a node", log, pause=0.5)
    except BaseException:
        end_node(process)
        raise
    return process


def end_node(node: subprocess.Popen[bytes]) -> None:
    """Kill `ray start` and all that it started."""
    for process in session_of(node.pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
            process.kill()
    node.wait()


def listens(port: int) -> bool:
    with socket.socket() as listener:
        return listener.connect_ex(("127.0.0.1", port)) == 0


def submit(cluster: Cluster, *command: object, options: tuple[object, ...] = ()) -> tuple[object, ...]:
    return (SUBMIT, "--address", cluster.job_server, *options, "--", *command)


def run(script: object, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_script(str(script), *arguments, **RAY_ENVIRONMENT)


def begun(log: Path, script: object, *arguments: object, **options: Any) -> Any:
    """A script that runs while the test goes on."""
    command = [sys.executable, str(script), *map(str, arguments)]
    return running(command, log, env=environment(**RAY_ENVIRONMENT), **options)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_path: Path, tiny_shards: Path) -> list[float]:
    """The losses of the run under the deepspeed launcher."""
    folder = tmp_path_factory.mktemp("launched")
    run, log = run_maker(folder, tiny_tokenizer_path, tiny_shards)("launched", **SECTIONS), folder / "log"
    with deepspeed(["--deepspeed", str(zero_maker(folder)("zero3")), "--config", str(run)], 2, log) as launcher:
        assert launcher.wait(DEADLINE_SECONDS) == 0, log.read_text()[-4000:]
    losses = losses_of(folder / "runs" / "launched")
    assert len(losses) == STEPS
    return losses


def test_a_cluster_trains_with_the_losses_of_the_launcher(
    cluster: Cluster, launched: list[float], tmp_path: Path, make_run: Make, zero_file: Make
) -> None:
    request = ["--deepspeed", zero_file("zero3"), "--config", make_run("on-ray", **SECTIONS), "--workers", 2]
    done = run(*submit(cluster, "launch/ray_train.py", *request))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    folder = tmp_path / "runs" / "on-ray"
    assert losses_of(folder) == launched
    assert f"saved {folder}/checkpoints/step_{STEPS:08d}" in done.stdout
    # What Ray knows is our own checkpoint where it lies, not a copy.
    known = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())["latest_checkpoint_result"]
    assert known["checkpoint_dir_name"] == f"checkpoints/step_{STEPS:08d}"
    assert known["metrics"]["loss"] == losses_of(folder)[-1]


def test_a_killed_worker_is_replaced_and_the_losses_are_those_of_a_run_that_was_left_alone(
    cluster: Cluster, launched: list[float], tmp_path: Path, make_run: Make, zero_file: Make
) -> None:
    folder, log = tmp_path / "runs" / "disturbed", tmp_path / "log"
    request = ["--deepspeed", zero_file("zero3"), "--config", make_run("disturbed", **SECTIONS), "--workers", 2]
    # What refuses a folder that holds a run must not refuse the run's own when a worker begins again.
    request += ["--checkpoint.resume", "none"]
    with begun(log, *submit(cluster, "launch/ray_train.py", *request)) as process:
        wait_until(lambda: len(metrics_of(folder)) >= 10 or process.poll() is not None, "the tenth step", log)
        victims = cluster.workers()
        assert len(victims) == 2, log.read_text()[-4000:]
        victims[1].send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_SECONDS) == 0, log.read_text()[-4000:]
    said = log.read_text()
    assert "restart 1 of 3" in said
    assert f"going on from {folder}/checkpoints/step_" in said
    assert losses_of(folder) == launched


@pytest.mark.slow
def test_a_signal_to_a_worker_or_to_the_command_ends_the_run_with_a_checkpoint_and_status_0(
    cluster: Cluster, tmp_path: Path, make_run: Make, zero_file: Make
) -> None:
    endless = make_run("asked", train={"steps": 5000}, evaluate={"sets": {}})
    folder, log = tmp_path / "runs" / "asked", tmp_path / "log"
    command = [RAY_TRAIN, "--deepspeed", zero_file("zero3"), "--config", endless, "--workers", "2"]
    command += ["--address", cluster.address]
    for asked, reason in (("worker", "SIGTERM"), ("command", f"{folder}/stop was made")):
        before = len(metrics_of(folder))
        with begun(log, *command) as process:
            wait_until(lambda n=before: len(metrics_of(folder)) >= n + 3, "three steps", log)  # type: ignore[misc]
            victim = cluster.workers()[1] if asked == "worker" else process
            victim.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0, log.read_text()[-4000:]
        said = log.read_text()
        assert "restart" not in said
        assert reason in said or "another rank asked" in said
        last = len(metrics_of(folder))
        assert f"saved {folder}/checkpoints/step_{last:08d}" in said
        assert f"stopped at step {last}" in said
    assert not (folder / "stop").exists()


def test_a_job_that_cannot_be_placed_says_what_it_asked_for_and_what_there_is_and_ends(
    cluster: Cluster, make_run: Make, zero_file: Make
) -> None:
    usual = ["--deepspeed", str(zero_file("zero3")), "--config", str(make_run("large"))]
    asked = ["--workers", "4", "--placement_seconds", "3"]
    done = run(*submit(cluster, "launch/ray_train.py", *usual, *asked))
    assert done.returncode == 2, done.stdout[-4000:] + done.stderr
    assert "error: no room for --workers=4, each with 1 CPU on one node" in done.stdout
    assert "the cluster of 2 node(s) has 2 CPU" in done.stdout


def test_submitting_shows_the_log_passes_on_folder_and_variables_and_ends_with_the_status_of_the_job(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = "import os, sys; print(os.getcwd(), os.environ['A'] + os.environ['B'], '完'); sys.exit(7)"
    options = ("--working_dir", str(tmp_path), "--env", "A=x=1", "--env", "B=y z")
    done = run(*submit(cluster, "-c", program, options=options))
    assert done.returncode == 7, done.stdout + done.stderr
    assert done.stdout.splitlines().count(f"{tmp_path} x=1y z 完") == 1

    done = run(*submit(cluster, "-c", "pass", options=("--working_dir", "/nowhere/at all")))
    assert done.returncode == 2
    assert "error: /nowhere/at all does not exist on the cluster's head node" in done.stdout

    log = tmp_path / "log"
    endless = submit(cluster, "-c", "import time; print('begun', flush=True); time.sleep(9999)")
    # A shell that runs the tests in the background lets them, and what they start, ignore it.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with begun(log, *endless, **heard) as process:
        wait_until(lambda: "\nbegun\n" in log.read_text(), "the job's first line", log)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 1, log.read_text()
    assert "was stopped" in log.read_text()


def test_an_address_where_no_cluster_is_costs_one_clear_line(make_run: Make, zero_file: Make) -> None:
    usual = ["--deepspeed", str(zero_file("zero3")), "--config", str(make_run("lost"))]
    nobody = f"127.0.0.1:{free_port()}"
    submitted = [SUBMIT, "--address", f"http://{nobody}", "--", "launch/ray_train.py", *usual]
    for command, words in [
        ([RAY_TRAIN, *usual, "--address", nobody], f"--address={nobody}: no Ray cluster answers"),
        (submitted, f"--address=http://{nobody}: no job server of a Ray cluster answers"),
    ]:
        done = run(*command)
        assert done.returncode == 2, done.stderr
        [line] = errors_of(done)
        assert words in line
