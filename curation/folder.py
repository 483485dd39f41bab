"""A folder of images, on a local disk or at any address that fsspec knows: tables memory-mapped, bytes by range.

Tables of a distant folder are fetched once into a local cache; images are never fetched whole shards at a time. No
name leads out of its folder: names come from tables and manifests, which may be anybody's.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pyarrow as pa
import xxhash

CACHE = "OVSEG_CACHE"
"""Environment variable that names the folder for copies of what lies at addresses; else one for temporary files."""


class Folder(Protocol):
    """What readers need of a folder."""

    def has(self, name: str) -> bool:
        """Return whether a file is there."""

    def path(self, name: str) -> Path:
        """Return a local path of a file, fetched if need be."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes of a file, fewer at its end.

        Raises: FileNotFoundError
        """

    def size(self, name: str) -> int:
        """Return the bytes of a file."""


def is_address(place: Path | str) -> bool:
    """Return whether a place is an address with a scheme, like s3://bucket/run, and not a path."""
    return "://" in str(place)


def cache_dir() -> Path:
    """Return the folder for copies of what lies at addresses.

    Raises: PermissionError when the one for temporary files belongs to somebody else, who could have put files there.
    """
    if named := os.environ.get(CACHE):
        return Path(named)
    folder = Path(tempfile.gettempdir()) / f"ovseg-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user; name a folder of your own in ${CACHE}")
    return folder


def inside(name: str) -> str:
    """Return the name of a file below a folder as it is.

    Raises: ValueError when it would lead out of the folder.
    """
    if not name or name.startswith("/") or (".." in name and ".." in name.split("/")):
        raise ValueError(f"{name!r}: expected the name of a file below its folder; the file that names it is not ours")
    return name


def open_folder(address: Path | str) -> Folder:
    """Return the folder at a path, or at an address with a scheme (s3://, gs://, http://, memory://)."""
    if is_address(address):
        return DistantFolder(str(address))
    return LocalFolder(Path(address))


def reach(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, or of a path, and the path in it, once a store has answered.

    An answer is also that there is nothing, or that listing is not allowed: one may be let in to what is below.

    Raises: ValueError when no library serves the address; OSError when its store cannot be asked.
    """
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{address}: {error}; expected a path, or an address like s3://bucket/name") from error
    try:
        filesystem.info(path)
    except OSError:
        pass
    except Exception as error:  # for missing keys or a wrong port every store's library has a kind of its own
        raise OSError(
            f"{address}: {error}; a store and its keys are named in the environment, for S3 in AWS_ENDPOINT_URL, "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    return filesystem, path


class LocalFolder:
    """A folder on a local disk; no file is held open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        return (self.folder / inside(name)).exists()

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / inside(name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes of a file, fewer at its end."""
        # Joining paths by pathlib takes longer than opening the file.
        descriptor = os.open(f"{self.folder}/{inside(name)}", os.O_RDONLY)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return (self.folder / inside(name)).stat().st_size


class DistantFolder:
    """A folder at an address of fsspec's."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._filesystem, self._path = reach(self.address)

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        return bool(self._filesystem.exists(self._at(name)))

    def path(self, name: str) -> Path:
        """Return the path of a local copy of a file, which is fetched when it is another than last time."""
        address = self._at(name)
        version = f"{self.address}/{name}\n{self._filesystem.ukey(address)}\n{self._filesystem.size(address)}"
        local = cache_dir() / xxhash.xxh3_128_hexdigest(version.encode()) / name
        if not local.exists():
            local.parent.mkdir(parents=True, exist_ok=True)
            temporary = local.with_name(f".{name}.{os.getpid()}.tmp")
            self._filesystem.get_file(address, str(temporary))
            temporary.replace(local)
        return local

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes of a file, fewer at its end."""
        content: bytes = self._filesystem.cat_file(self._at(name), start=offset, end=offset + length)
        # A web server that knows no ranges answers with the whole file.
        return content if len(content) <= length else content[offset : offset + length]

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return int(self._filesystem.size(self._at(name)))

    def _at(self, name: str) -> str:
        # In a URL, "#" and "?" of a file's name would end the path.
        is_url = self.address.startswith(("http://", "https://"))
        return f"{self._path}/{quote(inside(name)) if is_url else inside(name)}"


def map_table(path: Path) -> pa.Table:
    """Return the table of an Arrow file, memory-mapped.

    Raises: ValueError when the file is not whole.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a whole Arrow file ({error}); remove it and run its stage again") from error
