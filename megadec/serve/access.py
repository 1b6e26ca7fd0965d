"""From which pages and under which names the service is asked.

A browser on the same machine or network reaches the service for every page that it shows. A page of another site says
so in `Origin`; one whose name was made to point here (DNS rebinding) asks under that name in `Host`. Who asks by an
address, or without a browser, is not held up.
"""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from megadec.common.errors import ConfigError
from megadec.serve.limits import RequestError

ANY = "*"


@dataclass(frozen=True)
class Access:
    """hosts: names, beside this machine's own and any address, under which the service may be asked.

    origins: of pages elsewhere that may ask it, such as https://example.com. `*` is every one.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for host in self.hosts:
            if host != ANY and _name_of(host) != host.lower():
                raise ConfigError(f"access.hosts={host!r} is not a name without scheme and port, or {ANY}")
        for origin in self.origins:
            parts = urlsplit(origin)
            if origin != ANY and (f"{parts.scheme}://{parts.netloc}" != origin or not parts.netloc):
                raise ConfigError(f"access.origins={origin!r} is not like https://example.com (no path), or {ANY}")

    def check(self, host: str | None, origin: str | None) -> None:
        """Raise RequestError 403 for the headers `Host` and `Origin` of a request that is none of ours."""
        if host is not None and not self._is_ours(host):
            message = f"this server is not asked under the name {host!r}; --access.hosts names others"
            raise RequestError(message, 403, "host_not_allowed")
        own = origin is None or urlsplit(origin).netloc == host
        if not own and not {ANY, origin} & set(self.origins):
            message = f"this server is not asked by pages of {origin!r}; --access.origins names others"
            raise RequestError(message, 403, "origin_not_allowed")

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        own = {"localhost", socket.gethostname().lower(), *(one.lower() for one in self.hosts)}
        return ANY in own or name in own or _is_address(name)


def _name_of(host: str) -> str:
    """The name of a `Host` header, without its port; empty for one that is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
