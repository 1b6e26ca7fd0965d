"""The process that serves: what the command line names is opened, and answers until a signal.

One process and one computing thread; more of them are more servers, behind a proxy that counts.
"""

import contextlib
import errno
import math
import signal
import socket
from dataclasses import replace
from functools import partial
from types import FrameType

import torch

from megadec.common.errors import ConfigError, needs_extra
from megadec.common.log import logger
from megadec.serve.access import Access
from megadec.serve.connections import ACCEPTED_AT_ONCE, Connection, Connections, bound_logs, most_connections
from megadec.serve.http.app import build_app
from megadec.serve.load import open_classifier, open_language_model
from megadec.serve.options import ServeOptions
from megadec.serve.service import Service

log = logger(__name__)

WAITING_CONNECTIONS = 1024  # in the operating system, before they are accepted
CLOSING_SECONDS = 2.0  # to write the ends of answers after the grace time


def serve(options: ServeOptions) -> None:
    """Load what the options name, and answer until SIGTERM or SIGINT; then end within the grace time.

    Raises ConfigError when the port is taken, and what opening a model raises.
    """
    listener = _listen(options.host, options.port)
    with contextlib.closing(listener):
        model = classifier = None
        if options.model is not None:
            dtype, limits = getattr(torch, options.dtype), options.limits
            model = open_language_model(
                options.model, options.name, dtype, options.device, limits.running, limits.cache_bytes
            )
        if options.classifier is not None:
            classifier = open_classifier(options.classifier, getattr(torch, options.dtype), options.device)
        service = Service(options.limits, model, classifier)
        with contextlib.closing(service):
            # What a model cannot do shall be seen here and not by the first client.
            service.probe()
            if model is not None:
                model.template.check(model.tokenizer)
            if service.decoding is not None and (use := service.decoding.decoder.model.cache_use()).bytes:
                tokens = use.blocks * use.block_tokens
                log.info("the cache of keys and values has %s bytes, for %s tokens", f"{use.bytes:,}", f"{tokens:,}")
            names = " and ".join(found["id"] for found in service.models())
            host, port = listener.getsockname()[:2]
            log.info("serving %s at http://%s:%d", names, f"[{host}]" if ":" in host else host, port)
            own = () if ":" in options.host else (options.host,)  # an address is never refused
            _run(service, listener, replace(options.access, hosts=(*options.access.hosts, *own)))
    log.info("ended")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens: who comes while the model is loaded waits instead of being turned away."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except socket.gaierror as error:
        raise ConfigError(f"--host={host} is no address of this machine: {error.strerror}") from error
    except OSError as error:
        rules = {
            errno.EADDRINUSE: f"--port={port} is used by another program; choose another, or 0 for any free one",
            errno.EACCES: f"--port={port} may not be opened by this user; choose one from 1024",
            errno.EADDRNOTAVAIL: f"--host={host} is no address of this machine",
        }
        raise ConfigError(rules.get(error.errno or 0, f"cannot listen on {host}:{port}: {error.strerror}")) from error


def _run(service: Service, listener: socket.socket, access: Access) -> None:
    with needs_extra("uvicorn", "serve"):
        import uvicorn
    grace = service.limits.grace_seconds

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            log.info("stopping; answers have %.3g seconds to end", grace)
            service.scheduler.drain(grace)
            await super().shutdown(sockets)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            listener.listen(WAITING_CONNECTIONS)  # asyncio took the few that it accepts at once for this number too

    config = uvicorn.Config(
        build_app(service, access),
        http=partial(Connection, connections=Connections(service.limits, most_connections(service.limits))),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        backlog=ACCEPTED_AT_ONCE,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(grace + CLOSING_SECONDS),
    )
    bound_logs()
    server = Server(config)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises a signal again when it has ended; with this handler the process then ends by itself, with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listener])
