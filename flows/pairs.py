"""Stage: images/ to pairs/."""

from prefect import flow

import curation.pairs
from curation.manifest import Manifest
from curation.pairs import PairsConfig
from flows.artifacts import show_datacard, show_pairs
from flows.limits import DAY_S
from flows.places import Place, on_copies
from flows.settings import described


@flow(name="pairs", flow_run_name="{data_dir}", timeout_seconds=2 * DAY_S)
@described
@on_copies
def pairs(data_dir: Place, config: PairsConfig = PairsConfig()) -> Manifest:
    """Draw the cross-image partners of every image, and index images by their captions."""
    manifest = curation.pairs.build_pairs(data_dir, config)
    show_datacard(data_dir / "pairs")
    show_pairs(data_dir)
    return manifest
