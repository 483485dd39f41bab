"""Stage: caption table to captions/."""

from pathlib import Path

from prefect import flow

from curation import captions
from curation.captions import IngestConfig
from curation.manifest import Manifest
from flows.artifacts import show_datacard
from flows.limits import DAY_S
from flows.places import Place, on_copies
from flows.retries import retried
from flows.settings import described


@flow(name="ingest", flow_run_name="{data_dir}", timeout_seconds=2 * DAY_S)
@described
@on_copies
def ingest(table: Path | str, data_dir: Place, config: IngestConfig = IngestConfig()) -> Manifest:
    """Read a caption table into captions/, refusing bad rows with file, line and reason."""
    manifest = retried(captions.ingest)(table, data_dir, config)
    show_datacard(data_dir / "captions")
    return manifest
