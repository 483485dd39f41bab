from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.schema import CAPTIONS, ENTITIES, file_digest, image_key, part_name


@settings(deadline=None)
@given(st.text())
def test_key_is_a_63_bit_number_of_the_address_alone(address: str) -> None:
    key = image_key(address)
    assert 0 <= key < 2**63
    assert image_key(address) == key


def test_key_is_half_of_the_published_xxh3_64_of_the_empty_input() -> None:
    # 0x2D06800538D394C2 is XXH3_64bits of no bytes with seed 0, in the reference implementation's own test vectors.
    assert image_key("") == 0x2D06800538D394C2 // 2


def test_part_names_sort_in_their_order() -> None:
    names = [part_name(part) for part in (0, 9, 10, 99_999)]
    assert names == sorted(names)
    assert names[2] == "part-00010.parquet"


def test_file_digest_is_the_hash_of_all_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == xxhash.xxh3_128_hexdigest(content)


span = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
row = st.fixed_dictionaries(
    {
        "key": st.integers(0, 2**63 - 1),
        "caption_id": st.integers(0, 2**31 - 1),
        "url": st.none() | st.text(),
        "image": st.none() | st.text(),
        "caption": st.text(),
        "entities": st.lists(st.text()),
        "mentions": st.lists(
            st.tuples(st.text(), span).map(lambda m: {"entity": m[0], "start": m[1][0], "end": m[1][1]})
        ),
    }
)


@settings(deadline=None)
@given(st.lists(row, max_size=5))
def test_rows_of_entities_survive_parquet(rows: list[dict[str, object]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=ENTITIES), sink)
    assert pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist() == rows


def test_entities_begin_with_the_columns_of_captions() -> None:
    assert ENTITIES.names[: len(CAPTIONS.names)] == CAPTIONS.names
