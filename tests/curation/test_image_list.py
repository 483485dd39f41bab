from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.image_list import ImageList
from curation.manifest import read_manifest
from curation.schema import image_key


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
    entities_dir: Path = make_data(tmp_path_factory.mktemp("list"), images, num_parts) / "entities"
    listed = ImageList(entities_dir, read_manifest(entities_dir), size, entities_dir / "scratch")
    rows = [row for number in range(listed.num_shards) for row in listed.shard(number).to_pylist()]
    expected = sorted((image_key(image), image, [texts[0] for texts in captions]) for image, captions in images.items())
    assert [(row["key"], row["image"], [c["text"] for c in row["captions"]]) for row in rows] == expected
    assert listed.num_images == len(images)
    assert {len(listed.shard(number)) for number in range(listed.num_shards - 1)} <= {size}
    assert listed.has_paths
