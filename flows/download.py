"""Stage: entities/ to images/."""

from pathlib import Path

from prefect import flow

import curation.download
from curation.download import DownloadConfig
from curation.manifest import Manifest


@flow(name="download")
def download(data_dir: Path, config: DownloadConfig = DownloadConfig(), image_root: str | None = None) -> Manifest:
    """Fetch the images of the kept captions, by HTTP or from a folder, into verified shards."""
    is_web = image_root and image_root.startswith(("http://", "https://"))
    return curation.download.download(data_dir, config, image_root if is_web or not image_root else Path(image_root))
