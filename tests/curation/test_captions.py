from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.captions import ANOTHER_ADDRESS, REPEATED, IngestConfig, ingest
from curation.datacard import read_datacard
from curation.manifest import Manifest
from curation.removal import TAKEN_OUT
from curation.schema import CAPTIONS, image_key
from curation.table import BROKEN_UTF8, COLUMN_COUNT, NO_CAPTION

ROOT = Path(__file__).resolve().parents[2]


def kept(data_dir: Path, manifest: Manifest) -> list[dict[str, object]]:
    tables = [pq.read_table(data_dir / "captions" / part.name) for part in manifest.parts]
    rows: list[dict[str, object]] = pa.concat_tables([CAPTIONS.empty_table(), *tables]).to_pylist()
    return rows


def refused(data_dir: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(data_dir / "captions" / "refused.parquet").to_pylist()
    return rows


def write(tmp_path: Path, content: str | bytes, name: str = "table.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_keep_their_order_and_captions_count_within_an_image(tmp_path: Path) -> None:
    table = write(tmp_path, "http://a/1\ta cat\nhttp://a/2\ta dog\nhttp://a/1\tthe cat\nhttp://a/1\tmy cat\n")
    manifest = ingest(table, tmp_path / "data", IngestConfig(part_rows=2))
    rows = kept(tmp_path / "data", manifest)
    assert [(row["url"], row["caption_id"], row["caption"]) for row in rows] == [
        ("http://a/1", 0, "a cat"),
        ("http://a/2", 0, "a dog"),
        ("http://a/1", 1, "the cat"),
        ("http://a/1", 2, "my cat"),
    ]
    assert [row["key"] for row in rows] == [image_key(str(row["url"])) for row in rows]
    assert [row["image"] for row in rows] == [None] * 4
    assert [part.name for part in manifest.parts] == ["part-00000.parquet", "part-00001.parquet"]


def test_paths_of_images_go_to_their_own_column(tmp_path: Path) -> None:
    manifest = ingest(write(tmp_path, "image\tcaption\nin/1.jpg\ta cat\n"), tmp_path / "data")
    (row,) = kept(tmp_path / "data", manifest)
    assert (row["url"], row["image"], row["key"]) == (None, "in/1.jpg", image_key("in/1.jpg"))


def test_left_out_rows_lie_in_refused_with_file_line_reason_and_content(tmp_path: Path) -> None:
    lines = [b"http://a/1\ta cat", b"http://a/1\ta cat", b"http://a/2\t", b"http://a/3\ta \xff", b"http://a/4\ta dog"]
    data_dir = tmp_path / "data"
    manifest = ingest(write(tmp_path, b"\n".join(lines)), data_dir, IngestConfig(part_rows=1))
    assert refused(data_dir) == [
        {"file": "table.tsv", "line": 2, "reason": REPEATED, "content": "http://a/1\ta cat"},
        {"file": "table.tsv", "line": 3, "reason": NO_CAPTION, "content": "http://a/2\t"},
        {"file": "table.tsv", "line": 4, "reason": BROKEN_UTF8, "content": "http://a/3\ta \\xff"},
    ]
    assert manifest.counts == {"read": 5, "kept": 2, REPEATED: 1, NO_CAPTION: 1, BROKEN_UTF8: 1}
    card = read_datacard(data_dir / "captions")
    assert card["drops"] == {REPEATED: 1, NO_CAPTION: 1, BROKEN_UTF8: 1}
    assert (card["figures"]["rows read"], card["figures"]["rows kept"], card["figures"]["images"]) == (5, 2, 2)


@pytest.mark.parametrize("part_rows", [1, 100])
def test_a_second_address_with_the_same_key_is_refused(tmp_path: Path, part_rows: int) -> None:
    table = write(tmp_path, "http://a/1\ta cat\nhttp://b/1\ta dog\nhttp://a/1\tmy cat\nhttp://a/22\tan owl\n")
    config = IngestConfig(part_rows=part_rows)
    manifest = ingest(table, tmp_path / "data", config, key_of=len)
    assert [(row["line"], row["reason"]) for row in refused(tmp_path / "data")] == [(2, ANOTHER_ADDRESS)]
    assert [row["caption_id"] for row in kept(tmp_path / "data", manifest)] == [0, 1, 0]


def test_columns_that_are_not_read_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ingest(write(tmp_path, "id\turl\tcaption\n7\thttp://a/1\ta cat\n"), tmp_path / "data")
    assert "table.tsv: columns id are ignored" in caplog.messages
    assert read_datacard(tmp_path / "data" / "captions")["figures"]["columns ignored"] == "id"


def test_a_table_of_the_wrong_kind_stops_the_run(tmp_path: Path) -> None:
    table = write(tmp_path, "url\tcaption\n" + "no address\ta cat\n" * 600 + "http://a/1\ta cat\n" * 400)
    with pytest.raises(ValueError, match=r"table\.tsv line 2: address is not http or https, and 600 of 1,000 lines"):
        ingest(table, tmp_path / "data")
    manifest = ingest(table, tmp_path / "other", IngestConfig(max_refused_rate=0.6))
    assert manifest.counts["kept"] == 1


def test_a_finished_folder_is_returned_and_another_table_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path, "http://a/1\ta cat\n")
    first = ingest(table, tmp_path / "data")
    part = tmp_path / "data" / "captions" / "part-00000.parquet"
    written_ns = part.stat().st_mtime_ns
    assert ingest(table, tmp_path / "data") == first
    assert part.stat().st_mtime_ns == written_ns
    write(tmp_path, "http://a/1\tanother cat\n")
    with pytest.raises(ValueError, match=r"captions: made by stage 'ingest' with inputs\.table\.tsv = "):
        ingest(table, tmp_path / "data")


def test_a_killed_ingest_completes_with_the_same_rows_and_leaves_finished_parts_alone(tmp_path: Path) -> None:
    table = write(tmp_path, "".join(f"http://a/{i % 7}\tcaption {i % 11}\n" for i in range(50)))
    config = IngestConfig(part_rows=10)
    whole = ingest(table, tmp_path / "whole", config)
    ingest(table, tmp_path / "killed", config)
    folder = tmp_path / "killed" / "captions"
    for name in ("manifest.json", "part-00003.parquet.json", "refused.parquet"):
        (folder / name).unlink()
    written_ns = {path: path.stat().st_mtime_ns for path in folder.glob("part-0000[012].parquet")}
    again = ingest(table, tmp_path / "killed", config)
    assert again.digest == whole.digest
    assert again.counts == whole.counts
    assert {path: path.stat().st_mtime_ns for path in written_ns} == written_ns
    assert refused(tmp_path / "killed") == refused(tmp_path / "whole")


INGEST = """
import sys
from pathlib import Path
from curation.captions import IngestConfig, ingest
ingest(sys.argv[1], Path(sys.argv[2]), IngestConfig(part_rows=2000))
"""


@pytest.mark.parametrize("moment", [".scratch/00003.arrow", ".scratch/lines.json", "part-00002.parquet"])
def test_an_ingest_killed_for_real_ends_with_the_same_rows_and_digests(tmp_path: Path, moment: str) -> None:
    lines = [f"http://a/{i % 19_000}\tcaption {i % 23}" for i in range(40_000)] + ["broken"]
    table = write(tmp_path, "\n".join(lines))
    whole = ingest(table, tmp_path / "whole", IngestConfig(part_rows=2000))
    folder = tmp_path / "killed" / "captions"
    process = subprocess.Popen([sys.executable, "-c", INGEST, str(table), str(tmp_path / "killed")], cwd=ROOT)
    while not (folder / moment).exists():
        assert process.poll() is None, "it ended before the kill"
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (folder / "manifest.json").exists()
    marked = [path.with_name(path.name.removesuffix(".json")) for path in folder.glob("part-*.parquet.json")]
    left = {path: path.stat().st_mtime_ns for path in [*marked, *folder.glob(".scratch/[0-9]*.arrow")]}
    assert left
    again = ingest(table, tmp_path / "killed", IngestConfig(part_rows=2000))
    assert (again.digest, again.counts) == (whole.digest, whole.counts)
    assert refused(tmp_path / "killed") == refused(tmp_path / "whole")
    assert [path.stat().st_mtime_ns for path in marked] == [left[path] for path in marked], "a part was written again"
    assert not (folder / ".scratch").exists()


def test_a_part_may_hold_rows_of_several_files(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    write(tmp_path / "tables", "http://a/1\ta cat\nhttp://a/2\ta dog\n", "1.tsv")
    write(tmp_path / "tables", "a cow\thttp://a/3\nbroken\na cat\thttp://a/1\n", "2.tsv")
    write(tmp_path / "tables", '{"image": "4.jpg", "text": "an owl"}\n', "3.jsonl")
    manifest = ingest(tmp_path / "tables", tmp_path / "data", IngestConfig(part_rows=4))
    rows = kept(tmp_path / "data", manifest)
    assert [(row["url"] or row["image"], row["caption"]) for row in rows] == [
        *(("http://a/1", "a cat"), ("http://a/2", "a dog"), ("http://a/3", "a cow"), ("4.jpg", "an owl"))
    ]
    assert [part.rows for part in manifest.parts] == [3, 1]
    assert [(row["file"], row["line"], row["reason"]) for row in refused(tmp_path / "data")] == [
        ("2.tsv", 2, COLUMN_COUNT),
        ("2.tsv", 3, REPEATED),
    ]
    assert list(manifest.inputs) == ["1.tsv", "2.tsv", "3.jsonl"]
    figures = read_datacard(tmp_path / "data" / "captions")["figures"]
    assert figures["table"] == "3 files"
    assert figures["format"] == "JSON lines; tab-separated, no header"
    assert figures["columns"] == "caption, url; image, caption; url, caption"


def test_a_file_cut_short_is_named_with_its_line(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"http://a/{i}\ta cat {i * i}\n" for i in range(200_000)).encode())
    table = write(tmp_path, packed[:-2000], "table.tsv.gz")
    with pytest.raises(
        ValueError,
        match=r"table\.tsv\.gz after line [\d,]+: Truncated compressed stream; expected a whole file; was",
    ):
        ingest(table, tmp_path / "data")
    table = write(tmp_path, packed[:100], "table.tsv.gz")
    with pytest.raises(ValueError, match=r"table\.tsv\.gz: Truncated compressed stream; expected a whole file"):
        ingest(table, tmp_path / "data")


def test_what_is_on_the_removal_list_is_taken_out_without_a_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = write(tmp_path, "http://a.example/1\ta cat\nhttp://b.example/1\ta dog\nhttp://b.example/2\ta cow\n")
    removed = write(tmp_path, f"# asked\na.example\n{image_key('http://b.example/2')}\nc.example\n", "removed.txt")
    whole = ingest(table, tmp_path / "whole")
    manifest = ingest(table, tmp_path / "data", IngestConfig(removed=str(removed)))
    assert [row["caption"] for row in kept(tmp_path / "data", manifest)] == ["a dog"]
    assert [(row["line"], row["reason"], row["content"]) for row in refused(tmp_path / "data")] == [
        (1, TAKEN_OUT, "a.example"),
        (3, TAKEN_OUT, str(image_key("http://b.example/2"))),
    ]
    figures = read_datacard(tmp_path / "data" / "captions")["figures"]
    assert (figures["removal entries"], figures["removal entries without a row"]) == (3, 1)
    assert "removal: 1 entries have no row: c.example" in caplog.messages
    # Later stages follow: what they were made from has another digest now.
    assert manifest.digest != whole.digest
    removed.rename(tmp_path / "moved.txt")
    assert ingest(table, tmp_path / "data", IngestConfig(removed=str(tmp_path / "moved.txt"))) == manifest
    with pytest.raises(ValueError, match=r"captions: made by stage 'ingest' with inputs\.removed = .* \(now None\)"):
        ingest(table, tmp_path / "data")


def test_lengths_of_captions_are_counted(tmp_path: Path) -> None:
    captions = ["cat", " a  cat\u2003sat ", "a b c d e f", "w " * 300]
    ingest(write(tmp_path, "".join(f"http://a/{c}\t{t}\n" for c, t in enumerate(captions))), tmp_path / "data")
    card = read_datacard(tmp_path / "data" / "captions")
    bars = {row["words"]: row["captions"] for row in card["tables"]["caption lengths"]}
    assert {words: count for words, count in bars.items() if count} == {"0–4": 2, "5–9": 1, "100 or more": 1}
    # Words 1, 3, 6 and (at most) 100.
    assert card["figures"]["words per caption, mean"] == 27.5
    assert card["figures"]["words per caption, median"] == 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("part_rows", 0, "part_rows = 0: expected 1 or more lines"),
        ("max_refused_rate", 2.0, r"max_refused_rate = 2\.0: expected a share"),
        ("columns", ("url", "name"), "expected columns 'url' or 'image', and 'caption'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IngestConfig(**{field: value})  # type: ignore[arg-type]


cell = st.text(alphabet='ab"\t\n,é\u2028 ', max_size=4)
line = st.one_of(
    st.tuples(st.sampled_from(["http://a/1", "http://b/2", "ftp://c", ""]), cell).map("\t".join),
    cell,
).map(str.encode) | st.binary(max_size=6)


@settings(deadline=None, max_examples=40)
@given(st.lists(line, max_size=30), st.integers(1, 7))
def test_every_line_is_kept_or_refused_once_however_the_parts_are_cut(lines: list[bytes], part_rows: int) -> None:
    content = b"url\tcaption\n" + b"\n".join(lines)
    expected = content.split(b"\n")[1:]
    if expected[-1] == b"":
        expected.pop()
    with tempfile.TemporaryDirectory() as folder:
        table = write(Path(folder), content)
        manifest = ingest(table, Path(folder) / "cut", IngestConfig(part_rows=part_rows))
        whole = ingest(table, Path(folder) / "whole")
        rows, refusals = kept(Path(folder) / "cut", manifest), refused(Path(folder) / "cut")
        assert rows == kept(Path(folder) / "whole", whole)
        assert refusals == refused(Path(folder) / "whole")
    assert len(rows) + len(refusals) == len(expected)
    assert manifest.counts["read"] == len(expected)
    assert manifest.counts["kept"] == len(rows)
    # The plain rule: a usable line is kept when its (address, text) was not seen before.
    good = [text for text in expected if plainly_good(text)]
    assert [(row["url"], row["caption"]) for row in rows] == list(dict.fromkeys(map(plain_cells, good)))
    ids = Counter[object]()
    for row in rows:
        assert row["caption_id"] == ids[row["key"]]
        ids[row["key"]] += 1


def plain_cells(text: bytes) -> tuple[str, str]:
    address, caption = text.decode().removesuffix("\r").split("\t")
    return address.strip(), caption


def plainly_good(text: bytes) -> bool:
    try:
        address, caption = plain_cells(text)
    except ValueError:
        return False
    return address in ("http://a/1", "http://b/2") and bool(caption.strip())


@pytest.mark.real_data
def test_real_tables_lose_no_row(shared: Path, tmp_path: Path) -> None:
    for name, rows in (("cc3m_val.tsv", 15_833), ("photos.tsv", 4500), ("cc12m_sample_5rows.tsv", 5)):
        manifest = ingest(shared / "real" / name, tmp_path / name)
        assert manifest.counts == {"read": rows, "kept": rows}
        assert kept(tmp_path / name, manifest)[0]["caption_id"] == 0
