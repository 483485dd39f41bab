"""Stage: caption table to captions/."""

from pathlib import Path

from prefect import flow

from curation import captions
from curation.captions import IngestConfig
from curation.manifest import Manifest


@flow(name="ingest", log_prints=False)
def ingest(table: Path | str, data_dir: Path, config: IngestConfig = IngestConfig()) -> Manifest:
    """Read a caption table into captions/, refusing bad rows with file, line and reason."""
    return captions.ingest(table, data_dir, config)
