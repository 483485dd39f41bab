"""Stage: captions/ to entities/ and postings/."""

from pathlib import Path

from prefect import flow

import curation.parse
from curation.manifest import Manifest
from curation.parse import ParseConfig
from flows.parts import map_by_ray


@flow(name="parse")
def parse(data_dir: Path, config: ParseConfig = ParseConfig()) -> Manifest:
    """Find the entities that captions name, and keep the captions that name one."""
    return curation.parse.parse(data_dir, config, map_by_ray)
