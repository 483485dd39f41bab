"""Working copies of what lies at an object store's address, so that stages always work on plain local folders.

A stage wants files that appear by rename, that can be mapped, and that may be begun anew. So what it reads is copied to
this machine first (what lies here already stays), and what it writes is sent while it works and once more at its end,
in the order that makes a folder trustworthy: `started.json` first, parts before their markers, manifests last. Whatever
is killed, the store never shows a manifest whose parts are missing. The store is the truth: at the next start the copy
is made equal to it, and what had not been sent by then is made again.

A file is the same on both sides when its size and its time of change are; what is fetched or sent gets the store's.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path, PurePosixPath
from threading import Event, Thread
from typing import Any, NamedTuple

from curation.folder import cache_dir, inside, is_address, reach

logger = logging.getLogger(__name__)


PERIOD_S = 5.0
"""seconds between two looks for new files to send, while a stage works"""
BATCH = 64
"""files that are fetched or sent together"""


@dataclass(frozen=True)
class Needs:
    """What a stage wants of a place: names of folders or files below it, "" for all of it."""

    reads: tuple[str, ...] = ()
    """fetched"""
    writes: tuple[str, ...] = ()
    """fetched, since a stage goes on where it was, and sent"""


@contextmanager
def working_copy(place: Path | str, stage: str, needs: Needs, period_s: float = PERIOD_S) -> Iterator[Path]:
    """Yield the local folder in which a stage works on a place: the folder itself, or the copy of an address.

    Copies lie below `$OVSEG_CACHE`. Where several machines share the work of a stage, that must be a folder that all of
    them reach under the same path.

    Raises: ValueError when no library serves the address, or an object's name leads out of it; OSError when the store
    cannot be reached; BlockingIOError when another process of this machine works on the copy.
    """
    if not is_address(place):
        yield Path(place)
        return
    copy = Copy(str(place))
    with _alone(copy.folder, is_writer=bool(needs.writes)):
        copy.fetch(needs.reads)
        copy.fetch(needs.writes)
        try:
            with _sending(copy, needs.writes, period_s):
                yield copy.folder
        finally:
            logger.info("storage  %s  %s: %s", stage, copy.address, copy.moved)


@dataclass
class Moved:
    """What was moved between a store and its copy."""

    files_fetched: int = 0
    bytes_fetched: int = 0
    files_sent: int = 0
    bytes_sent: int = 0

    def __str__(self) -> str:
        """Return a line for people."""
        fetched, sent = f"{self.bytes_fetched / 1e6:,.3f}", f"{self.bytes_sent / 1e6:,.3f}"
        return f"fetched {fetched} MB in {self.files_fetched:,} files, sent {sent} MB in {self.files_sent:,} files"


class Stamp(NamedTuple):
    """By what a file is told to be the same on both sides."""

    num_bytes: int
    changed_ns: int


class Copy:
    """The copy of an address on this machine."""

    def __init__(self, address: str) -> None:
        self._filesystem, path = reach(address)
        self._root = path.rstrip("/")
        self._stored: dict[str, Stamp] = {}
        self.address = address.rstrip("/")
        self.folder = cache_dir() / "copies" / inside(address.split("://")[0]) / inside(self._root.lstrip("/"))
        """the copy"""
        self.moved = Moved()
        """since this object was made"""

    def fetch(self, names: Collection[str]) -> None:
        """Make files below the names equal to the store's; files that the store does not have are removed."""
        stored = self._list(names)
        for name in self._scan(names, with_hidden=True).keys() - stored.keys():
            self._remove(self.folder / name)
        wanted = [name for name, stamp in stored.items() if _stamp(self.folder / name) != stamp]
        for batch in _batches(wanted):
            arriving = [(self.folder / name).with_name(f".{Path(name).name}.tmp") for name in batch]
            for path in arriving:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._filesystem.get([self._at(name) for name in batch], [str(path) for path in arriving])
            for name, path in zip(batch, arriving, strict=True):
                os.utime(path, ns=(stored[name].changed_ns,) * 2)
                path.replace(self.folder / name)
        self._stored = stored
        self.moved.files_fetched += len(wanted)
        self.moved.bytes_fetched += sum(stored[name].num_bytes for name in wanted)

    def send(self, names: Collection[str]) -> None:
        """Make the store's files below the names, which were fetched last, equal to ours; hidden ones are not sent.

        May be called while files appear: what vouches for others is listed before they are read, and sent after them.
        """
        ours = self._scan(names)
        changed = {name for name, stamp in ours.items() if self._stored.get(name) != stamp}
        gone = self._stored.keys() - ours.keys()
        if not changed and not gone:
            return
        if links := [name for name in changed if (self.folder / name).is_dir()]:
            raise ValueError(
                f"{self.folder / links[0]}: images that are left in a folder of this machine cannot be sent; set "
                f"download.in_place = false"
            )
        # What vouches for parts that become others must not be there while they do.
        turn = {name: _turn(name, ours.keys() | gone) for name in ours.keys() | gone}
        withdrawn = [name for name in self._stored if turn[name] in _VOUCHING and name in changed | gone]
        self._withdraw(sorted(withdrawn, key=turn.__getitem__, reverse=True))
        for _, group in groupby(sorted(changed, key=turn.__getitem__), key=turn.__getitem__):
            for batch in _batches(list(group)):
                self._filesystem.put([str(self.folder / name) for name in batch], [self._at(name) for name in batch])
        self._withdraw(gone - set(withdrawn))
        self._stored = self._list(names)
        for name in changed & self._stored.keys():
            _set_time(self.folder / name, ours[name], self._stored[name].changed_ns)
        self.moved.files_sent += len(changed)
        self.moved.bytes_sent += sum(ours[name].num_bytes for name in changed)

    def _withdraw(self, names: Iterable[str]) -> None:
        for name in names:
            self._filesystem.rm_file(self._at(name))
            del self._stored[name]

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _list(self, names: Iterable[str]) -> dict[str, Stamp]:
        """Return the store's files below the names."""
        self._filesystem.invalidate_cache()
        found = {}
        for top in names:
            for path, about in self._filesystem.find(self._at(top), detail=True).items():
                if about["type"] == "file" and not path.endswith("/"):  # consoles make objects that stand for folders
                    name = inside(path.removeprefix(f"{self._root}/"))
                    found[name] = Stamp(int(about["size"]), _changed_ns(about))
        return found

    def _scan(self, names: Iterable[str], with_hidden: bool = False) -> dict[str, Stamp]:
        """Return our files below the names."""
        found = {}
        for top in names:
            for path in _files(self.folder / top):
                name = str(path.relative_to(self.folder))
                stamp = _stamp(path)
                if stamp and (with_hidden or not any(piece.startswith(".") for piece in name.split("/"))):
                    found[name] = stamp
        return found

    def _remove(self, path: Path) -> None:
        if path.name.endswith(".lock"):  # another process may hold it
            return
        path.unlink()
        # An emptied folder, of a checkpoint for example, would stand for one that was there.
        for parent in path.parents:
            if parent == self.folder or any(parent.iterdir()):
                return
            parent.rmdir()


_FIRST, _PART, _POINTER, _MARKER, _LAST = range(5)
_VOUCHING = (_MARKER, _LAST)
_BEGINNINGS = ("started.json", "config.json")
_ENDINGS = ("manifest.json", "run.json", "evaluation.json", "classification.json")
_TIMES = ("LastModified", "last_modified", "mtime", "created")


def _turn(name: str, names: Collection[str]) -> int:
    """Return when a file is sent, in the order in which stages write what they rely on."""
    path = PurePosixPath(name)
    if path.name in _BEGINNINGS:
        return _FIRST
    if path.name in _ENDINGS:
        return _LAST
    if path.suffix == ".json" and name.removesuffix(".json") in names:
        return _MARKER
    # samples.arrow says where in the shards images lie; a checkpoint is of a step up to which metrics.jsonl is there.
    return _POINTER if path.suffix == ".arrow" or "checkpoints" in path.parts else _PART


@contextmanager
def _sending(copy: Copy, names: Collection[str], period_s: float) -> Iterator[None]:
    """Send what appears, by a thread while the block runs, and the rest when it ends, however it ends."""
    is_over = Event()

    def send_on() -> None:
        while not is_over.wait(period_s):
            try:
                copy.send(names)
            except Exception:  # of the store's many kinds; the last call below raises
                logger.warning("%s: not all could be sent, tried again soon", copy.address, exc_info=True)

    thread = Thread(target=send_on, name=f"storage {copy.address}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        copy.send(names)


@contextmanager
def _alone(folder: Path, is_writer: bool) -> Iterator[None]:
    """Keep other processes of this machine from the copy: readers from a writer, and writers from everybody."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if is_writer else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"{folder}: another process of this machine works on it; wait for its end") from error
        yield


def _files(top: Path) -> Iterator[Path]:
    """Yield the files at or below a path, and links to folders, which lead out of it."""
    if top.is_file():
        yield top
    for folder, subfolders, names in os.walk(top):
        links = [name for name in subfolders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in names + links)


def _stamp(path: Path) -> Stamp | None:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(about.st_size, about.st_mtime_ns)


def _set_time(path: Path, sent: Stamp, changed_ns: int) -> None:
    """Give a file the store's time, unless it has become another one since it was looked at."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        about = os.fstat(descriptor)
        if Stamp(about.st_size, about.st_mtime_ns) == sent:
            os.utime(descriptor, ns=(changed_ns, changed_ns))
    finally:
        os.close(descriptor)


def _changed_ns(about: dict[str, Any]) -> int:
    time = next(about[name] for name in _TIMES if about.get(name) is not None)
    seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    return round(seconds * 1e6) * 1000


def _batches(names: list[str]) -> Iterator[list[str]]:
    yield from (names[first : first + BATCH] for first in range(0, len(names), BATCH))
