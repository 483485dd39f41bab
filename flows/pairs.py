"""Stage: images/ to pairs/."""

from pathlib import Path

from prefect import flow

import curation.pairs
from curation.manifest import Manifest
from curation.pairs import PairsConfig


@flow(name="pairs")
def pairs(data_dir: Path, config: PairsConfig = PairsConfig()) -> Manifest:
    """Draw the cross-image partners of every image, and index images by their captions."""
    return curation.pairs.build_pairs(data_dir, config)
