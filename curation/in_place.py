"""Images of a folder that are used where they lie: looked at once, and not copied.

An image stays in its folder when every decoder shows what is meant by it: upright, 8 bits, grey or RGB. The others are
turned, converted and stored in a shard, as are images that are so large that decoding them at each use would cost more
than the copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curation.fetch import FetchError, read_local
from curation.image_bytes import is_upright, opened
from curation.images import FILES
from curation.verify import ACCOUNT, look_at

if TYPE_CHECKING:
    from curation.download import DownloadConfig

MAX_PIXELS = 16_000_000
"""Pixels of an image that stays in its folder at most."""


def link_files(images_dir: Path, image_root: Path) -> None:
    """Let `FILES` in the folder of stored images lead to the folder that images lie in."""
    link = images_dir / FILES
    link.unlink(missing_ok=True)
    link.symlink_to(image_root)


def accounts_in_place(images: pa.Table, image_root: Path, config: DownloadConfig) -> pa.Table:
    """Return the accounts (`ACCOUNT`) of those images (`curation.image_list.IMAGES`) that stay where they lie or fail.

    Images that are named by a URL or have to be copied have no row.
    """
    rows: list[dict[str, Any]] = []
    for key, path in zip(images["key"].to_pylist(), images["image"].to_pylist(), strict=True):
        if path is None:
            continue
        try:
            content = read_local(image_root, path, config.max_bytes)
            if _may_stay(content, config.max_pixels):
                seen = look_at(content, config.max_pixels)
                originals = {f"original_{name}": seen[name] for name in ("width", "height")}
                rows.append({"key": key, "path": path, "offset": 0, **seen, **originals})
        except FetchError as error:
            rows.append({"key": key, "cause": error.cause, "detail": error.detail})
    return pa.Table.from_pylist(rows, schema=ACCOUNT)


def _may_stay(content: bytes, max_pixels: int) -> bool:
    with opened(content, max_pixels) as image:
        is_small = image.width * image.height <= MAX_PIXELS
        return is_small and image.mode in ("L", "RGB") and is_upright(image, content)
