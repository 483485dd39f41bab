from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.captions import IngestConfig, ingest
from curation.image_list import ImageList
from curation.manifest import close_stage, open_stage, read_manifest, write_part
from curation.schema import ENTITIES, image_key

MENTIONS = [{"entity": "cat", "start": 2, "end": 5}]


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_captions=st.lists(st.integers(1, 3), min_size=1, max_size=12),
    num_parts=st.integers(1, 3),
    size=st.integers(1, 5),
)
def test_shards_hold_every_image_once_in_order_of_key(
    tmp_path_factory: Any, make_data: Any, num_captions: list[int], num_parts: int, size: int
) -> None:
    images = {f"{i}.jpg": [["cat"], ["dog"], ["sofa"]][:count] for i, count in enumerate(num_captions)}
    data_dir: Path = make_data(tmp_path_factory.mktemp("list"), images, num_parts)
    listed = ImageList(data_dir, read_manifest(data_dir / "entities"), size, data_dir / "scratch")
    rows = [row for number in range(listed.num_shards) for row in listed.shard(number).to_pylist()]
    expected = sorted((image_key(image), image, [texts[0] for texts in captions]) for image, captions in images.items())
    assert [(row["key"], row["image"], [c["text"] for c in row["captions"]]) for row in rows] == expected
    assert listed.num_images == len(images)
    assert {len(listed.shard(number)) for number in range(listed.num_shards - 1)} <= {size}
    assert listed.has_paths


def test_of_all_captions_those_that_name_an_entity_have_mentions(tmp_path: Path) -> None:
    lines = ["1.jpg\ta thought", "1.jpg\ta cat", "2.jpg\tan idea", "1.jpg\tnothing", "3.jpg\tmy cat"]
    (tmp_path / "table.tsv").write_text("image\tcaption\n" + "\n".join(lines))
    captions = ingest(tmp_path / "table.tsv", tmp_path, IngestConfig(part_rows=3))
    open_stage(tmp_path / "entities", "parse", {}, {})
    parts = []
    for part in captions.parts:
        rows = pq.read_table(tmp_path / "captions" / part.name).to_pylist()
        cats = [{**row, "entities": ["cat"], "mentions": MENTIONS} for row in rows if "cat" in row["caption"]]
        table = pa.Table.from_pylist(cats, schema=ENTITIES)
        parts.append(write_part(tmp_path / "entities", part.name, table))
    close_stage(tmp_path / "entities", parts)
    listed = ImageList(tmp_path, captions, 10, tmp_path / "scratch")
    found = {row["image"]: [(c["text"], c["mentions"]) for c in row["captions"]] for row in listed.shard(0).to_pylist()}
    assert found == {
        "1.jpg": [("a thought", None), ("a cat", MENTIONS), ("nothing", None)],
        "2.jpg": [("an idea", None)],
        "3.jpg": [("my cat", MENTIONS)],
    }
