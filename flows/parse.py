"""Stage: captions/ to entities/ and postings/."""

from prefect import flow

import curation.parse
from curation.manifest import Manifest
from curation.parse import ParseConfig
from flows.artifacts import show_datacard, show_entities
from flows.limits import DAY_S
from flows.parts import map_by_ray
from flows.places import Place, on_copies
from flows.retries import retried
from flows.settings import described


@flow(name="parse", flow_run_name="{data_dir}", timeout_seconds=2 * DAY_S)
@described
@on_copies
def parse(data_dir: Place, config: ParseConfig = ParseConfig()) -> Manifest:
    """Find the entities that captions name, and keep the captions that name one."""
    manifest = retried(curation.parse.parse)(data_dir, config, map_by_ray)
    show_datacard(data_dir / "entities")
    show_entities(data_dir)
    return manifest
