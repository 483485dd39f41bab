"""The fetch of one image, from the web or a folder: within limits of time, bytes and place, a cause for each failure.

Addresses are checked where a socket is about to be made, so that names, literal addresses, redirects and changing DNS
answers pass the same gate.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from PIL import Image, UnidentifiedImageError
from yarl import URL

if TYPE_CHECKING:
    from curation.download import DownloadConfig

OPT_OUT = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
"""Directives of X-Robots-Tag that keep an image out."""

_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
_FIRST_PAUSE_S = 0.5


class FetchError(Exception):
    """Why an image could not be had: a short cause to count by, a detail to read, and whether another try may help."""

    def __init__(self, cause: str, detail: str = "", *, is_transient: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.is_transient = is_transient
        self.retry_after_s = retry_after_s


class WebFetcher:
    """Fetches images over http and https; callable from many threads, which share connections and DNS answers."""

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        self._agent = config.user_agent.split("/")[0].strip().lower()
        self._loop = asyncio.new_event_loop()
        # DNS look-ups block a thread each: as many as images in flight, so that dead names do not hold up the others.
        self._loop.set_default_executor(ThreadPoolExecutor(config.threads))
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._session = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def __call__(self, url: str) -> bytes:
        """Return the bytes at an address, after as many tries as the config allows where another try may help.

        Raises: FetchError
        """
        for attempt in range(self.config.retries + 1):
            try:
                return asyncio.run_coroutine_threadsafe(self._get(url), self._loop).result()
            except FetchError as error:
                if not error.is_transient or attempt == self.config.retries:
                    raise
                time.sleep(min(max(_FIRST_PAUSE_S * 2**attempt, error.retry_after_s), self.config.timeout_s))
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
            async with asyncio.timeout(self.config.timeout_s):
                return await self._follow(URL(url))
        except TimeoutError as error:
            detail = f"not complete within {self.config.timeout_s:g} s"
            raise FetchError("timeout", detail, is_transient=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _named(error) from error

    async def _follow(self, url: URL) -> bytes:
        for _ in range(self.config.max_redirects + 1):
            if url.scheme not in ("http", "https") or not url.host:
                raise FetchError("bad_address", f"{url}: not http or https")
            async with self._session.get(url, allow_redirects=False) as response:
                if _opts_out(response.headers.getall("X-Robots-Tag", ()), self._agent):
                    raise FetchError("opted_out", f"X-Robots-Tag of {url.host}")
                if response.status not in _REDIRECTS:
                    return await self._body(response)
                url = url.join(URL(response.headers.get("Location", "")))
        raise FetchError("redirects", f"more than {self.config.max_redirects}")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        status, limit = response.status, self.config.max_bytes
        if status != 200:
            wait = response.headers.get("Retry-After", "")
            raise FetchError(
                f"http_{status}",
                response.reason or "",
                is_transient=status in (408, 429) or status >= 500,
                retry_after_s=float(wait) if wait.isdecimal() else 0.0,
            )
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
            raise PrivateAddressError("the host has a private, loopback or link-local address")
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


def check_image(content: bytes, max_pixels: int) -> None:
    """Read the header of an image, so that its size is known before anything is decoded.

    Raises: FetchError when this is no image, or one of too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except UnidentifiedImageError as error:
        raise FetchError("not_an_image", _first_bytes(content)) from error
    except Image.DecompressionBombError as error:
        raise FetchError("too_many_pixels", str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's readers raise all three on broken headers
        raise FetchError("undecodable", str(error)) from error
    if width * height > max_pixels:
        raise FetchError("too_many_pixels", f"{width} x {height}")


def _named(error: Exception) -> FetchError:
    detail = f"{type(error).__name__}: {error}"
    match error:
        case aiohttp.ClientConnectorDNSError():
            is_transient = getattr(error.os_error, "errno", None) == socket.EAI_AGAIN
            return FetchError("dns", detail, is_transient=is_transient)
        case aiohttp.ClientSSLError():
            return FetchError("tls", detail)
        case aiohttp.ClientConnectorError(os_error=PrivateAddressError()):
            return FetchError("private_address", str(error.os_error))
        case aiohttp.InvalidURL():
            return FetchError("bad_address", detail)
        case aiohttp.ClientPayloadError():
            return FetchError("truncated", detail, is_transient=True)
        case aiohttp.ClientConnectionError() | OSError():
            return FetchError("connection", detail, is_transient=True)
        case aiohttp.ClientError():
            return FetchError("bad_answer", detail)
        case _:
            return FetchError("bad_address", detail)


def _opts_out(tags: Iterable[str], agent: str) -> bool:
    """Return whether X-Robots-Tag values, `[agent:] directive, ...` each, keep images from us."""
    for tag in tags:
        *names, directives = tag.lower().split(":", 1)
        if all(name.strip() == agent for name in names) and OPT_OUT & {word.strip() for word in directives.split(",")}:
            return True
    return False


def _first_bytes(content: bytes) -> str:
    return f"begins with {content[:16]!r}" if content else "empty"
