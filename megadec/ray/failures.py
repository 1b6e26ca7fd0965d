"""Turns what Ray reports of lost workers into one line, and into the errors of megadec."""

from collections.abc import Mapping
from typing import Any

from megadec.common.errors import ConfigError, MegadecError, TrainingError
from megadec.common.log import logger


def one_line(error: object, most: int = 300) -> str:
    """The beginning of a message, at most so many characters, without line ends."""
    # Of a worker that does not answer Ray first prints all it knows about the worker, and then what happened.
    happened = getattr(error, "health_check_failure", error)
    return " ".join(str(happened).split())[:most]


def failure_watch(max_failures: int) -> Any:
    """A callback for Ray Train that logs which worker was lost, and ends the run at once when the request is wrong."""
    from ray.train import UserCallback

    class FailureWatch(UserCallback):
        failures = 0

        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
            self.failures += 1
            rank, error = _first_cause(worker_exceptions)
            if isinstance(error, MegadecError) and error.exit_status == ConfigError.exit_status:
                raise error
            goes_on = f"restart {self.failures} of {max_failures}" if self.failures <= max_failures else "given up"
            logger(__name__).warning("rank %d was lost (%s); %s", rank, one_line(error), goes_on)

    return FailureWatch()


def to_megadec_error(error: Exception, workers: int, max_failures: int) -> Exception:
    """The error that a user can act on; a defect of ours keeps Ray's error with its traceback."""
    inner = getattr(error, "controller_failure", None)
    if inner is not None:
        if isinstance(inner, MegadecError):
            return inner
        return TrainingError(f"Ray could not start or keep {workers} worker(s): {one_line(inner)}")
    rank, cause = _first_cause(getattr(error, "worker_failures", {0: error}))
    if isinstance(cause, MegadecError):
        return cause
    if type(cause).__module__.startswith("ray."):
        return TrainingError(
            f"rank {rank} was lost once more than --max_failures={max_failures} ({one_line(cause)}); the same"
            " command goes on from the last checkpoint"
        )
    return error


def _first_cause(failures: Mapping[int, Exception]) -> tuple[int, Exception]:
    """The failure that caused the others: the peers of a lost worker end with a TrainingError."""
    return min(failures.items(), key=lambda item: (isinstance(item[1], TrainingError), item[0]))
