"""A copy of images/ on a node's own disk, so that training does not read every image over the network each epoch."""

from __future__ import annotations

import fcntl
import logging
import shutil
from pathlib import Path

from curation.images import FILES, SAMPLES_FILE, Samples

logger = logging.getLogger(__name__)


def stage_images(samples: Samples, stage_dir: Path) -> Samples:
    """Return the same images, read from their copy below `stage_dir`; what lies there whole is not copied again.

    The workers of a node share one copy: the first makes it, the others wait. A file gets its name when it is whole.

    Raises: ValueError when the images were left in a folder of their own; OSError when they do not fit on the disk.
    """
    source = Path(samples.images_dir)
    if (source / FILES).exists():
        raise ValueError(
            f"launch.stage_dir = {str(stage_dir)!r}: {source} holds no shards, its images were left where they lie; "
            f"set launch.stage_dir = null"
        )
    copy = stage_dir / samples.digest
    copy.mkdir(parents=True, exist_ok=True)
    with (copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The tables last: a folder that holds them holds everything.
        files = [*sorted(source.glob("*.tar")), *sorted(source.glob("samples-*.arrow")), source / SAMPLES_FILE]
        missing = [file for file in files if not (copy / file.name).exists()]
        needed, free = sum(file.stat().st_size for file in missing), shutil.disk_usage(copy).free
        if needed > free:
            raise OSError(
                f"launch.stage_dir = {str(stage_dir)!r}: {needed / 1e9:.1f} GB of images to copy, {free / 1e9:.1f} GB "
                f"free; choose a larger disk, or set launch.stage_dir = null to read {source} itself"
            )
        for file in missing:
            temporary = copy / f".{file.name}.tmp"
            shutil.copyfile(file, temporary)
            temporary.replace(copy / file.name)
        if missing:
            logger.info("%s: copied %d files, %.1f GB", copy, len(missing), needed / 1e9)
    return Samples(copy)
