"""Fetch a public dump: resumed where it broke off, compared with its checksum, under its final name only when whole.

In: a known dump's name or an http address. Out: the file. What has come so far lies beside it with the server's tag for
that version, so another call goes on, and begins anew where the server has changed the file. A checksum from the same
server tells damage on the way, not a server that lies: for that give your own.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from megadec import __version__
from megadec.common.config import parse
from megadec.common.errors import ConfigError, InputError, MegadecError, check_choice, check_range
from megadec.common.files import storage_errors, sync_path, write_json
from megadec.common.log import logger, progress

WIKIMEDIA = "https://dumps.wikimedia.org"
# https://meta.wikimedia.org/wiki/Mirroring_Wikimedia_project_XML_dumps
MIRRORS = {
    "wikimedia": WIKIMEDIA,
    "your.org": "https://dumps.wikimedia.your.org",
    "accum": "https://mirror.accum.se/mirror/wikimedia.org/dumps",
    "c3sl": "https://wikipedia.c3sl.ufpr.br",
}
# The end of a dump's name, after WIKI-VERSION-.
DUMPS = {
    "articles": "pages-articles-multistream.xml.bz2",
    "articles-index": "pages-articles-multistream-index.txt.bz2",
    "articles-one-stream": "pages-articles.xml.bz2",
}
HASHES = ("sha256", "sha1", "md5")
BLOCK_BYTES = 1 << 20
LONGEST_PAUSE_SECONDS = 60.0
GONE = (400, 401, 403, 404, 410)
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")
_SUM_LINE = re.compile(r"([0-9a-f]{32,64})[ *]+(\S+)\s*")

Got = TypeVar("Got")

log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """What to fetch, and what it must be.

    Attributes:
        dump: zhwiki (or another wiki's name, such as zh_classicalwiki), or the http address of any file.
        output: the folder that the file goes to.
        part: of a wiki: articles, articles-index (where its streams begin), articles-one-stream.
        version: of a wiki: latest, or a date such as 20260401.
        mirror: of a wiki: wikimedia, your.org, accum, c3sl, or the address of another copy of dumps.wikimedia.org.
        sha256: what the file's SHA-256 must be.
        sha1: what its SHA-1 must be; of a wiki the server's own list is asked where none is given.
        md5: what its MD5 must be.
        attempts: how often it is tried again without any progress.
        pause_seconds: the wait before the second try, doubled before each further one, at most a minute.
        timeout_seconds: silence of the server after which a try has failed.
        overwrite: replace a file that is there.
    """

    dump: str
    output: Path
    part: str = "articles"
    version: str = "latest"
    mirror: str = "wikimedia"
    sha256: str = ""
    sha1: str = ""
    md5: str = ""
    attempts: int = 6
    pause_seconds: float = 2.0
    timeout_seconds: float = 60.0
    overwrite: bool = False


class _Partial(NamedTuple):
    """What has come so far: the file, and beside it what the server said of it."""

    file: Path
    state: Path

    def validator(self, address: str) -> str:
        """The server's tag for the version that has come so far; "" where nothing of this address has."""
        try:
            said = json.loads(self.state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(said["validator"]) if said.get("address") == address else ""

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)


def download(options: DownloadOptions) -> Path:
    """Fetch the file; its path. One that is there with the right checksum is not fetched again.

    Raises ConfigError for options that do not fit and for a file that is there, InputError for an address without a
    file and for a wrong checksum (what came is removed then), MegadecError where the server does not answer in all
    attempts (what came stays for the next call), StorageError.
    """
    check_range(options, "", "attempts", least=1)
    check_range(options, "", "pause_seconds", least=0)
    check_range(options, "", "timeout_seconds", above=0)
    address = _address(options)
    name = unquote(PurePosixPath(urlsplit(address).path).name)
    if not name:
        raise ConfigError(f"dump={options.dump}: names no file at its end")
    wanted = _wanted(options, address, name)
    path = options.output / name
    if path.exists() and not options.overwrite:
        if wanted and not _difference(path, wanted):
            log.info("%s is there already, with the checksum that it must have", path)
            return path
        raise ConfigError(f"{path}: exists already; choose another folder or give --overwrite true")
    partial = _Partial(path.with_name(f".{name}.download"), path.with_name(f".{name}.download.json"))
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _with_attempts(options, address, lambda: _fetch(options, address, partial), partial.file)
        if wrong := _difference(partial.file, wanted):
            partial.remove()
            raise InputError(f"{address}: {wrong}: it was damaged on its way or changed; what came is removed")
        sync_path(partial.file)
        partial.file.replace(path)
        partial.remove()
        sync_path(path.parent)
    return path


def main(argv: Sequence[str]) -> None:
    """Fetch what the command line asks for, and print where it lies."""
    print(download(parse(DownloadOptions, argv, description="Fetch a public dump, resumed and checked.")))


def _address(options: DownloadOptions) -> str:
    if "://" in options.dump:
        if not options.dump.startswith(("http://", "https://")):
            raise ConfigError(f"dump={options.dump}: only http and https; prepare reads other addresses itself")
        return options.dump
    if not re.fullmatch(r"[a-z_]+wik[a-z]+", options.dump):
        raise ConfigError(f"dump={options.dump!r} is neither a wiki's name, such as zhwiki, nor an http address")
    check_choice("part", options.part, DUMPS)
    name = f"{options.dump}-{options.version}-{DUMPS[options.part]}"
    return f"{_mirror(options)}/{options.dump}/{options.version}/{name}"


def _mirror(options: DownloadOptions) -> str:
    if "://" in options.mirror:
        return options.mirror.rstrip("/")
    check_choice("mirror", options.mirror, MIRRORS)
    return MIRRORS[options.mirror]


def _wanted(options: DownloadOptions, address: str, name: str) -> dict[str, str]:
    """The checksums that the file must have, by the name of the hash."""
    given = {kind: getattr(options, kind).strip().lower() for kind in HASHES if getattr(options, kind)}
    for kind, value in given.items():
        digits = 2 * hashlib.new(kind).digest_size
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
            raise ConfigError(f"{kind}={value!r} is not {digits} hexadecimal digits")
    if given or "://" in options.dump:
        return given
    sums = f"{address.rpartition('/')[0]}/{options.dump}-{options.version}-sha1sums.txt"
    listed = _with_attempts(options, sums, lambda: _text(options, sums))
    # The list of `latest` names the files by their dates.
    dated = re.compile(re.escape(name).replace(re.escape(options.version), r"(?:latest|\d{8})", 1))
    found = [match[1] for match in map(_SUM_LINE.fullmatch, listed.splitlines()) if match and dated.fullmatch(match[2])]
    if len(found) != 1:
        raise InputError(f"{sums}: {len(found)} lines for {name}; give its checksum with --sha1")
    return {"sha1": found[0]}


def _difference(path: Path, wanted: dict[str, str]) -> str:
    """How a file's checksums are other than those wanted, in words; "" where they are the same."""
    for kind, value in wanted.items():
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != value:
            return f"its {kind} is {found}, it must be {value}"
    return ""


class _BrokenOffError(Exception):
    """A try ended before the file did."""


def _with_attempts(
    options: DownloadOptions, address: str, attempt: Callable[[], Got], growing: Path | None = None
) -> Got:
    """What `attempt` gives; tried again after failures of the network, counted anew each time that `growing` grew."""
    failures, before = 0, -1
    while True:
        try:
            return attempt()
        except HTTPError as error:
            if error.code in GONE:
                raise InputError(f"{address}: the server says {error.code} {error.reason}") from None
            found, pause = f"{error.code} {error.reason}", _retry_after(error)
        except (URLError, HTTPException, TimeoutError, ConnectionError, _BrokenOffError) as error:
            found, pause = str(error) or type(error).__name__, 0.0
        size = growing.stat().st_size if growing and growing.exists() else 0
        failures = 1 if size > before else failures + 1
        before = size
        if failures >= options.attempts:
            kept = f"; {size:,} bytes are kept, call again to go on" if size else ""
            raise MegadecError(f"{address}: {found}, in {failures} attempts{kept}")
        pause = min(LONGEST_PAUSE_SECONDS, max(pause, options.pause_seconds * 2 ** (failures - 1)))
        log.warning("%s: %s; again in %.0f s", address, found, pause)
        time.sleep(pause)


def _retry_after(error: HTTPError) -> float:
    said = error.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else 0.0


def _open(options: DownloadOptions, address: str, headers: dict[str, str]) -> HTTPResponse:
    agent = {"User-Agent": f"megadec/{__version__}", "Accept-Encoding": "identity"}
    response = urlopen(Request(address, headers=agent | headers), timeout=options.timeout_seconds)
    assert isinstance(response, HTTPResponse)
    return response


def _text(options: DownloadOptions, address: str) -> str:
    with _open(options, address, {}) as response:
        return response.read().decode("utf-8", "replace")


def _fetch(options: DownloadOptions, address: str, partial: _Partial) -> None:
    """Fetch what is missing of the partial file. Raises what the network raises, and _BrokenOffError."""
    validator = partial.validator(address)
    have = partial.file.stat().st_size if validator and partial.file.exists() else 0
    # The range is only sent where the file is still the same; else all of it is.
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
    try:
        response = _open(options, address, headers)
    except HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE or not have:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return  # it was whole
        partial.remove()
        raise _BrokenOffError("it is shorter now than what had come") from None
    with response:
        begins = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        same = begins is not None and int(begins[1]) == have and _validator(response) == validator
        goes_on = response.status == PARTIAL_CONTENT and same
        if response.status == PARTIAL_CONTENT and not goes_on:
            partial.remove()
            raise _BrokenOffError(f"another range or version came than from byte {have:,} of {validator}")
        if not goes_on:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        write_json(partial.state, {"address": address, "validator": _validator(response)})
        bar = progress(description=partial.file.name, total=total, unit="B", initial=have)
        with bar, open(partial.file, "ab" if goes_on else "wb") as file:
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                have += len(block)
                bar.update(len(block))
    if total is not None and have < total:
        raise _BrokenOffError(f"broke off after {have:,} of {total:,} bytes")


def _validator(response: HTTPResponse) -> str:
    """What tells one version of the file from another: a strong tag, or the time of its last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
