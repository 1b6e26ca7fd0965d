"""Joins a Ray cluster, for whatever is to run there."""

import importlib
import logging
import os
import socket

from megadec.common.errors import ConfigError, needs_extra
from megadec.ray.failures import one_line

CONNECT_SECONDS = 5.0


def connect(address: str | None, part: str) -> None:
    """Join a Ray cluster. part: what is used of Ray, `ray.train` or `ray.data`.

    Raises MissingExtraError, ConfigError (nobody answers at the address).
    """
    with needs_extra("ray", "ray"):
        import ray

        importlib.import_module(part)
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None and address.startswith("ray://"):
        raise ConfigError(
            f"--address={address} is Ray's client port; give HOST:PORT of the head (`ray start` prints it), or run the"
            " whole command on the cluster with launch/submit.py"
        )
    if address is not None and ":" in address:
        # Ray itself waits for half a minute, and then ends the process without an exception.
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--address={address}: no Ray cluster answers there ({error})") from error
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--address={address or 'auto'}: {one_line(error)}") from error
