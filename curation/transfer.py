"""Fetching a caption table by http: what has arrived is kept, and the next call goes on behind its last byte.

NAME.partial holds the bytes so far and NAME.partial.json what the server said of the file when they began; the file
takes its name when its size is the one promised. A server's copy that changed in between is fetched from its start.
"""

from __future__ import annotations

import json
import logging
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from curation.manifest import replacing
from curation.progress import Progress

logger = logging.getLogger(__name__)

TRIES = 5
"""connections in a row without a new byte before giving up"""
TIMEOUT_S = 60.0
"""seconds without a byte after which a connection counts as broken"""
FIRST_WAIT_S = 1.0
"""seconds to the next connection after one without a new byte; doubled each time"""

_AGENT = "ovsegmentor/0.1 (fetches a caption table)"
_BLOCK_BYTES = 1 << 20
_LOG_BYTES = 100 << 20


def fetch_table(url: str, folder: Path) -> Path:
    """Return the file at an http(s) address, fetched into the folder unless it lies there whole.

    Raises: OSError that names the address, what arrived and the way out when the server refuses or keeps breaking off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1] or "table"
    path, partial = folder / name, folder / f"{name}.partial"
    if path.exists():
        logger.info("%s: fetched before, in %s", url, path)
        return path
    most, failures, problem = _size(partial), 0, ""
    while failures < TRIES:
        try:
            if _fetch_on(url, partial):
                partial.replace(path)
                _record(partial).unlink()
                return path
            problem = "the connection ended early"
        except HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise OSError(
                    f"{url}: the server answers {error.code} {error.reason}; is the address right?"
                ) from error
            problem = f"the server answers {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            problem = str(getattr(error, "reason", error))
        failures = 0 if _size(partial) > most else failures + 1
        most = max(most, _size(partial))
        logger.warning("%s: %s after %s bytes; trying again", url, problem, f"{_size(partial):,}")
        time.sleep(FIRST_WAIT_S * 2 ** (failures - 1) if failures else 0)
    raise OSError(
        f"{url}: {problem}, {TRIES} times in a row, after {_size(partial):,} bytes; they are kept in {partial}, "
        f"and the same command goes on behind them"
    )


def _fetch_on(url: str, partial: Path) -> bool:
    """Append what is missing to the partial file, and tell whether it is whole now."""
    record = json.loads(_record(partial).read_text()) if _record(partial).exists() else None
    have = _size(partial) if record and record["url"] == url else 0
    request = Request(url, headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416 and record and have == record["size"]:
            return True  # nothing lies behind what we have: it was killed between its last byte and its name
        if error.code == 416:
            return _start_over(url, partial)
        raise
    with response:
        said = _said(url, response, have)
        if have and (response.status != 206 or said != record):
            return _start_over(url, partial)
        with replacing(_record(partial)) as path:
            path.write_text(json.dumps(said))
        with partial.open("ab") as file, Progress(f"fetch {partial.stem}", said["size"] or 0, have) as progress:
            file.truncate(have)
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                progress.moved(len(block), log_every=_LOG_BYTES)
    return said["size"] is None or _size(partial) == said["size"]


def _start_over(url: str, partial: Path) -> bool:
    logger.info("%s: the server has another file now, or gives no rest of one; fetching it from its start", url)
    _record(partial).unlink()
    return False


def _said(url: str, response: Any, have: int) -> dict[str, Any]:
    """Return what tells the server's copy of the file: its whole size and its mark."""
    length = response.headers.get("Content-Length")
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    size = int(whole) if whole.isdigit() else int(length) if length and not have else None
    return {"url": url, "size": size, "mark": response.headers.get("ETag") or response.headers.get("Last-Modified")}


def _record(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
