"""The fetch of one image, from the web or a folder: within limits of time, bytes and place, a cause for each failure.

Addresses are checked where a socket is about to be made, so that names, literal addresses, redirects and changing DNS
answers pass the same gate. A host is asked for a few images at a time, waits when it says so, and is left alone when it
answers nothing at all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from yarl import URL

if TYPE_CHECKING:
    from curation.download import DownloadConfig

OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
"""Directives of X-Robots-Tag that keep an image out."""

LATER = frozenset({"timeout", "dns", "host_down", "out_of_time", "lost"})
"""Causes for which another try is worth it in a later round, not at once."""
SOON = frozenset({"connection", "truncated", "http_408", "http_425", "http_429"})
"""Causes for which another try is worth it at once; so are answers of 500 and above."""

_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
_FIRST_PAUSE_S = 0.5
_UNREACHABLE = frozenset({"timeout", "dns", "connection"})


class FetchError(Exception):
    """Why an image could not be had: a short cause to count by, a detail to read, and the wait that the host asks."""

    def __init__(self, cause: str, detail: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.retry_after_s = retry_after_s


def is_transient(cause: str) -> bool:
    """Return whether another try may end otherwise: time-outs, names, broken connections, 408, 429, 5xx."""
    return cause in LATER or cause in SOON or cause.startswith("http_5")


@dataclass
class _Host:
    free: asyncio.Semaphore
    silent_until: float = 0.0
    failures: int = field(default=0)
    """requests in a row that got no answer"""


class WebFetcher:
    """Fetches images over http and https; callable from many threads, which share connections and DNS answers.

    After `config.shard_deadline_s` no request begins any more: what is left fails as "out_of_time", for a later round.
    """

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        self._agent = config.user_agent.split("/")[0].strip().lower()
        self._loop = asyncio.new_event_loop()
        self._end = self._loop.time() + config.shard_deadline_s
        self._hosts: defaultdict[URL, _Host] = defaultdict(lambda: _Host(asyncio.Semaphore(config.per_host)))
        # DNS look-ups block a thread each: as many as images in flight, so that dead names do not hold up the others.
        self._loop.set_default_executor(ThreadPoolExecutor(config.threads))
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._session = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def __call__(self, url: str) -> bytes:
        """Return the bytes at an address, after as many tries as the config allows where another at once may help.

        Raises: FetchError
        """
        for attempt in range(self.config.retries + 1):
            try:
                return asyncio.run_coroutine_threadsafe(self._get(url), self._loop).result()
            except FetchError as error:
                pause_s = max(_FIRST_PAUSE_S * 2**attempt, error.retry_after_s)
                is_later = error.cause in LATER or pause_s > self.config.timeout_s
                if is_later or not is_transient(error.cause) or attempt == self.config.retries:
                    raise
                time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close the connections and end the thread."""
        asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self.config.threads, ttl_dns_cache=300, socket_factory=self._make_socket
            ),
            headers={**_HEADERS, "User-Agent": self.config.user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # one deadline over everything, in _get
            auto_decompress=False,  # identity was asked for, and a small answer must not unfold into a large one
        )

    async def _get(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(self.config.timeout_s) as deadline:
                return await self._follow(URL(url), deadline)
        except TimeoutError as error:
            raise FetchError("timeout", f"not complete within {self.config.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _named(error) from error

    async def _follow(self, url: URL, deadline: asyncio.Timeout) -> bytes:
        for _ in range(self.config.max_redirects + 1):
            if url.scheme not in ("http", "https") or not url.host:
                raise FetchError("bad_address", f"{url}: not http or https")
            host = self._hosts[url.origin()]
            async with self._turn(host, deadline), self._session.get(url, allow_redirects=False) as response:
                if _opts_out(response.headers.getall("X-Robots-Tag", ()), self._agent):
                    raise FetchError("opted_out", f"X-Robots-Tag of {url.host}")
                if response.status not in _REDIRECTS:
                    return await self._body(response, host)
                url = url.join(URL(response.headers.get("Location", "")))
        raise FetchError("redirects", f"more than {self.config.max_redirects}")

    @asynccontextmanager
    async def _turn(self, host: _Host, deadline: asyncio.Timeout) -> AsyncIterator[None]:
        """Wait for a place among the host's requests; this wait does not count against the image's deadline."""
        now = self._loop.time
        left_s = (deadline.when() or math.inf) - now()
        deadline.reschedule(None)
        async with host.free:
            silent_s = host.silent_until - now()
            if host.failures >= self.config.host_failures:
                raise FetchError("host_down", f"{host.failures} requests in a row got no answer")
            if silent_s > self.config.timeout_s:
                raise FetchError("http_429", f"the host wants {silent_s:.0f} s of silence", silent_s)
            if now() + max(silent_s, 0) > self._end:
                raise FetchError("out_of_time", f"the shard has had its {self.config.shard_deadline_s:g} s")
            await asyncio.sleep(max(silent_s, 0))
            deadline.reschedule(now() + left_s)
            try:
                yield
            except asyncio.CancelledError:  # how the deadline is felt in here
                host.failures += 1
                raise
            except (aiohttp.ClientError, OSError) as error:
                host.failures = host.failures + 1 if _named(error).cause in _UNREACHABLE else 0
                raise
            except FetchError:
                host.failures = 0
                raise
            host.failures = 0

    async def _body(self, response: aiohttp.ClientResponse, host: _Host) -> bytes:
        status, limit = response.status, self.config.max_bytes
        if status != 200:
            wait_s = _seconds(response.headers.get("Retry-After", ""))
            host.silent_until = max(host.silent_until, self._loop.time() + wait_s)
            raise FetchError(f"http_{status}", response.reason or "", wait_s)
        content = bytearray()
        if (response.content_length or 0) <= limit:
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > limit:
                    break
            else:
                return bytes(content)
        raise FetchError("too_large", f"more than {limit} bytes")

    def _make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, (host, *_) = address
        if not self.config.allow_private and not is_public(host):
            # One text for all addresses of a host: the connector repeats it only when they agree.
            raise PrivateAddressError("a private, loopback or link-local address; allow_private permits it")
        return socket.socket(family, kind, protocol)


class PrivateAddressError(OSError):
    """A connection to an address that is not public was refused."""


def is_public(host: str) -> bool:
    """Return whether an IP address belongs to the public internet: not private, loopback, link-local or multicast."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    return address.is_global and not address.is_multicast


def read_local(root: Path, path: str, max_bytes: int) -> bytes:
    """Return the bytes of a file that lies under `root`.

    Raises: FetchError, also when the path leads out of `root`.
    """
    file = (root / path).resolve()
    if not file.is_relative_to(root.resolve()):
        raise FetchError("outside_root", path)
    try:
        if file.stat().st_size > max_bytes:
            raise FetchError("too_large", f"more than {max_bytes} bytes")
        return file.read_bytes()
    except OSError as error:
        raise FetchError("no_file", error.strerror or str(error)) from error


def _named(error: Exception) -> FetchError:
    detail = f"{type(error).__name__}: {error}"
    match error:
        case aiohttp.ClientConnectorDNSError():
            return FetchError("dns", detail)
        case aiohttp.ClientSSLError():
            return FetchError("tls", detail)
        case aiohttp.ClientConnectorError(os_error=PrivateAddressError()):
            return FetchError("private_address", str(error.os_error))
        case aiohttp.InvalidURL():
            return FetchError("bad_address", detail)
        case aiohttp.ClientPayloadError():
            return FetchError("truncated", detail)
        case aiohttp.ClientConnectionError() | OSError():
            return FetchError("connection", detail)
        case aiohttp.ClientError():
            return FetchError("bad_answer", detail)
        case _:
            return FetchError("bad_address", detail)


def _seconds(retry_after: str) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 when it says nothing."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _opts_out(tags: Iterable[str], agent: str) -> bool:
    """Return whether X-Robots-Tag values, `[agent:] directive, ...` each, keep images from us."""
    for tag in tags:
        *names, directives = tag.lower().split(":", 1)
        if all(name.strip() == agent for name in names) and OPT_OUT & {word.strip() for word in directives.split(",")}:
            return True
    return False
