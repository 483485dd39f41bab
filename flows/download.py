"""Stage: entities/ to images/."""

from pathlib import Path

from prefect import flow

import curation.download
from curation.download import DownloadConfig
from curation.manifest import Manifest


@flow(name="download")
def download(data_dir: Path, config: DownloadConfig = DownloadConfig(), image_root: str | None = None) -> Manifest:
    """Fetch the images of the kept captions, by HTTP or from a folder, into verified shards."""
    return curation.download.download(data_dir, config, image_root)
