"""Stage: entities/ to images/."""

from prefect import flow

import curation.download
from curation.download import DownloadConfig
from curation.manifest import Manifest
from flows.artifacts import show_datacard
from flows.limits import DAY_S, DOWNLOADS, slot
from flows.parts import shards_by_ray
from flows.places import Place, on_copies
from flows.retries import retried
from flows.settings import described


@flow(name="download", flow_run_name="{data_dir}", timeout_seconds=60 * DAY_S)
@described
@on_copies
def download(
    data_dir: Place, config: DownloadConfig = DownloadConfig(), image_root: str | None = None, on_ray: bool = False
) -> Manifest:
    """Fetch the images of the kept captions, by HTTP or from a folder, into verified shards.

    `on_ray` makes each shard a Ray task: data folder and images must be within reach of all nodes.
    """
    run_shards = shards_by_ray(config) if on_ray else None
    with slot(DOWNLOADS):
        manifest = retried(curation.download.download)(data_dir, config, image_root, run_shards)
    show_datacard(data_dir / "images")
    return manifest
