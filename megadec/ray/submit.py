"""Sends a command to a Ray cluster, follows its log, and ends with its status.

The job server starts the command on the head node in `--working_dir`. Nothing is uploaded: the project folder,
with shards and runs, lies on a file system that all nodes see under the same path, because a copy would be taken away
with the job, and its checkpoints with it. Ctrl-C stops the job, which saves first if it trains; when this command is
killed, the job goes on.
"""

import argparse
import asyncio
import itertools
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from megadec.common.config import parse
from megadec.common.errors import FAILED_ON_THE_WAY, ConfigError, TrainingError, needs_extra
from megadec.common.log import logger
from megadec.ray.failures import one_line

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

START_SECONDS = 60.0
# So long a job that is stopped may save; Ray's own 3 seconds are too few for a step and a save.
STOP_SECONDS = 600
GRACE_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
LOST_SECONDS = 60.0
# The supervisor of a job says how it ended a moment after its log has ended.
POLL_SECONDS = 0.2

log = logger(__name__)


@dataclass(frozen=True)
class SubmitOptions:
    """What is sent where.

    address: http://HOST:PORT of the job server, port 8265 as a rule. working_dir: where the command runs on the
    cluster; without, the path of this folder. env: KEY=VALUE for it and for all its workers.
    python: the interpreter on the head node, the one whose environment holds ray and megadec.
    """

    address: str
    working_dir: str | None = None
    env: tuple[str, ...] = ()
    python: str = "python"

    def __post_init__(self) -> None:
        if urlsplit(self.address).scheme not in ("http", "https") or not urlsplit(self.address).hostname:
            raise ConfigError(
                f"--address={self.address} is not the http://HOST:PORT of a job server (port 8265 as a rule)"
            )
        for pair in self.env:
            if not pair.partition("=")[0] or "=" not in pair:
                raise ConfigError(f"--env {pair!r} is not KEY=VALUE")


def main(argv: Sequence[str]) -> None:
    """Send the command after `--` to a Ray cluster, follow its log, and end with its status."""
    ours, command = _split(argv)
    options = parse(SubmitOptions, ours, description=main.__doc__ or "", program="launch/submit.py")
    if not command:
        raise ConfigError("no command: `-- launch/ray_train.py --config ...` is expected after the options")
    client = connect(options.address)
    folder = Path(options.working_dir or ".").absolute()
    variables = {GRACE_VARIABLE: str(STOP_SECONDS), **dict(pair.split("=", 1) for pair in options.env)}
    job = start(client, entrypoint(folder, [options.python, *command]), variables)
    log.info("job %s runs at %s", job, options.address)
    try:
        follow(client, job)
    except KeyboardInterrupt:
        stop(client, job)
    status = status_of(client, job)
    if status:
        sys.exit(status)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(our options, the command after `--`); every `--env` given is gathered into one."""
    before = list(itertools.takewhile(lambda argument: argument != "--", argv))
    gathering = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    gathering.add_argument("--env", nargs="*", action="extend", default=[])
    pairs, ours = gathering.parse_known_args(before)
    return [*ours, *(["--env", *pairs.env] if pairs.env else [])], list(argv[len(before) + 1 :])


def connect(address: str) -> "JobSubmissionClient":
    """The job server at `address`. Raises MissingExtraError, ConfigError (nobody, or not a job server, answers)."""
    with needs_extra("ray", "ray"):
        from ray.job_submission import JobSubmissionClient
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # they would take the place of what --address says
        os.environ.pop(name, None)
    try:
        return JobSubmissionClient(address)
    except Exception as error:  # ConnectionError, RuntimeError, JSON and HTTP errors of whatever answers there
        raise ConfigError(
            f"--address={address}: no job server of a Ray cluster answers there ({one_line(error, 2000)})"
        ) from error


def start(client: "JobSubmissionClient", command: str, variables: dict[str, str]) -> str:
    """Hand the command to the cluster: the job's name. Raises TrainingError when it takes none."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return client.submit_job(entrypoint=command, runtime_env={"env_vars": variables})
        except (RuntimeError, OSError) as error:
            # A cluster that has just been started says "try again later" for some seconds.
            if time.monotonic() > deadline or "try again" not in str(error):
                raise TrainingError(f"the cluster does not take the job: {one_line(error)}") from error
        time.sleep(1.0)


def entrypoint(folder: Path, command: Sequence[str]) -> str:
    """What the head node's shell runs: the command in `folder`, or one clear line where there is no such folder."""
    missing = f"error: {folder} does not exist on the cluster's head node; --working_dir must be a folder that it sees"
    return (
        f"cd {shlex.quote(str(folder))} 2>/dev/null || {{ echo {shlex.quote(missing)}; exit 2; }};"
        f" exec {shlex.join(command)}"
    )


def follow(client: "JobSubmissionClient", job: str) -> None:
    """Print the log of a job, once however often the connection is lost, until the job has ended.

    Raises TrainingError when the job server stays away.
    """
    printed, heard = 0, time.monotonic()

    def show(position: int, text: str) -> None:
        nonlocal printed
        fresh = text[max(0, printed - position) :]
        print(fresh, end="", flush=True)
        printed += len(fresh)

    async def show_as_it_grows() -> None:
        position = 0
        async for text in client.tail_job_logs(job):
            show(position, text)
            position += len(text)

    while True:
        try:
            asyncio.run(show_as_it_grows())
            if client.get_job_status(job).is_terminal():
                show(0, client.get_job_logs(job))
                return
            heard = time.monotonic()
        except (RuntimeError, OSError) as error:
            if time.monotonic() - heard > LOST_SECONDS:
                raise TrainingError(
                    f"the job server has not answered for {LOST_SECONDS:g} s; job {job} may go on ({error})"
                ) from error
        time.sleep(POLL_SECONDS)


def stop(client: "JobSubmissionClient", job: str) -> None:
    """Ask the job to stop, and wait until it has."""
    log.warning("asking job %s to stop; a second Ctrl-C leaves it to itself", job)
    client.stop_job(job)
    deadline = time.monotonic() + STOP_SECONDS
    while not client.get_job_status(job).is_terminal():
        if time.monotonic() > deadline:
            raise TrainingError(f"job {job} has not stopped within {STOP_SECONDS} s; `ray job status {job}` shows it")
        time.sleep(POLL_SECONDS)


def status_of(client: "JobSubmissionClient", job: str) -> int:
    """The exit status of an ended job's command. Raises TrainingError when the cluster could not run it."""
    from ray.job_submission import JobStatus

    info = client.get_job_info(job)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        log.warning("job %s was stopped", job)
        return FAILED_ON_THE_WAY
    code = info.driver_exit_code
    if code is None:
        raise TrainingError(f"job {job} was not run to its end: {one_line(info.message)}")
    log.error("job %s ended with status %d", job, code)
    return code if code > 0 else 128 - code  # killed by a signal: what a shell makes of it
