"""Column types of every table that stages hand to each other, the key that joins them, the digest that tells files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import xxhash

SCHEMA_VERSION = 2

MENTION = pa.struct([("entity", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32())])

CAPTIONS = pa.schema(
    [
        pa.field("key", pa.int64(), nullable=False),
        pa.field("caption_id", pa.int32(), nullable=False),
        ("url", pa.string()),
        ("image", pa.string()),
        pa.field("caption", pa.string(), nullable=False),
    ]
)
"""captions/: one row per caption, unique on (key, caption_id). Exactly one of url and image is set."""

REFUSED = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("content", pa.string())])
"""captions/refused.parquet: one row per input row that was left out. Lines count from 1."""

ENTITIES = pa.schema([*CAPTIONS, pa.field("entities", pa.list_(pa.string())), pa.field("mentions", pa.list_(MENTION))])
"""entities/: the captions that name an entity. Offsets count characters (Unicode code points) of `caption`."""

NOUNS = pa.field("nouns", pa.list_(SPAN))
"""Further column of entities/ when the parse was asked for noun spans."""

SUBSET = pa.schema([("key", pa.int64()), ("caption_id", pa.int32()), ("digest", pa.uint64())])
"""A subset manifest: one row per caption, sorted by (key, caption_id); `digest` is its `caption_digest`."""

POSTINGS = pa.schema([("entity", pa.string()), ("key", pa.int64()), ("part", pa.int32()), ("row", pa.int32())])
"""postings/: sorted by (entity, part, row), no row group with two entities; `row` counts from 0 within
entities/part-<part>.parquet."""

ENTITY_COUNTS = pa.schema([("entity", pa.string()), ("captions", pa.int64()), ("images", pa.int64())])
"""postings/counts.parquet: the captions and the images (different keys) of each entity, the most frequent first."""

COOCCURRENCE = pa.schema([("entity", pa.string()), ("other", pa.string()), ("captions", pa.int64())])
"""postings/cooccurrence.parquet: the captions that name both, of every pair that occurs (entity < other)."""

SAMPLES = pa.schema(
    [
        pa.field("key", pa.int64(), nullable=False),
        ("shard", pa.int32()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        (
            "captions",
            pa.list_(pa.struct([("text", pa.string()), ("mentions", pa.list_(MENTION)), ("nouns", pa.list_(SPAN))])),
        ),
    ]
)
"""images/samples.arrow: one row per stored image, sorted by key; the image is `length` bytes at `offset` of the shard,
or of the file at `path` below images/files when it was left in its folder.

Mentions are null where a caption names no entity, nouns also where the parse was not asked for them."""

PAIRS = pa.schema([("key", pa.int64()), ("pair_key", pa.int64()), ("entity", pa.string()), ("score", pa.float32())])
"""pairs/: K rows per image; `score` is the similarity, 0 for uniform draws."""


def image_key(address: str) -> int:
    """Return the 63-bit key of an image: its URL, or its path relative to the image root, hashed by xxh3-64."""
    return xxhash.xxh3_64_intdigest(address.encode()) >> 1


def address_digest(address: str) -> int:
    """Return a second hash of an image's address, independent of its key: it tells two addresses of one key apart."""
    return xxhash.xxh3_64_intdigest(address.encode(), seed=1)


def caption_digest(address: int, caption: str) -> int:
    """Return the hash of an `address_digest` and a text, by which captions are told apart and found again."""
    return xxhash.xxh3_64_intdigest(caption.encode(), seed=address)


def file_digest(path: Path) -> str:
    """Return the xxh3-128 of a file's bytes, hexadecimal."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def part_name(part: int) -> str:
    """Return the file name of a Parquet part, `part-00012.parquet`."""
    return f"part-{part:05d}.parquet"
