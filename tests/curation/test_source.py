from __future__ import annotations

import gzip
from pathlib import Path
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest
from fsspec.registry import known_implementations

from curation.source import PUBLISHED, TableFile, find_tables

CONTENT = b"http://a/1\ta cat\n" * 1000


def content(file: TableFile) -> bytes:
    unpacked, _ = file.open()
    with unpacked:
        return unpacked.read()


@pytest.mark.parametrize(
    "packed",
    [
        CONTENT,
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:500]) + gzip.compress(CONTENT[500:]),
        pa.compress(CONTENT, "zstd", asbytes=True),
        pa.compress(CONTENT[:500], "zstd", asbytes=True) + pa.compress(CONTENT[500:], "zstd", asbytes=True),
    ],
    ids=["plain", "gzip", "gzip in two members", "zstd", "zstd in two frames"],
)
def test_files_are_unpacked_whatever_their_name(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "table.tsv").write_bytes(packed)
    (file,) = find_tables(str(tmp_path / "table.tsv"), tmp_path)
    assert (file.name, file.size) == ("table.tsv", len(packed))
    assert content(file) == CONTENT


def test_a_folder_gives_its_tables_in_order_and_says_what_it_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = ["b.tsv", "a.csv", "in/c.jsonl.gz", "d.PARQUET", "_SUCCESS", ".hidden.tsv", "README.md"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_tables(str(tmp_path), tmp_path)
    assert [file.name for file in found] == ["a.csv", "b.tsv", "d.PARQUET", "in/c.jsonl.gz"]
    assert caplog.messages == [f"{tmp_path}: 4 tables; not read: README.md"]


def test_a_glob_takes_every_file_that_it_matches(tmp_path: Path) -> None:
    for name in ("1/a.txt", "2/a.txt", "2/b.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in find_tables(f"{tmp_path}/*/a.*", tmp_path)] == ["1/a.txt", "2/a.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].tsv").write_bytes(b"x")
    assert [file.name for file in find_tables(f"{tmp_path}/a[1].tsv", tmp_path)] == ["a[1].tsv"]


def test_an_fsspec_address_is_read_and_its_digest_follows_its_content(tmp_path: Path) -> None:
    address = f"memory://{uuid4()}/part.tsv.gz"
    with fsspec.open(address, "wb") as writer:
        writer.write(gzip.compress(CONTENT))
    (file,) = find_tables(address, tmp_path)
    assert content(file) == CONTENT
    before = file.digest()
    assert find_tables(address.rsplit("/", 1)[0], tmp_path)[0].digest() == before
    assert find_tables(address.replace("part", "*"), tmp_path)[0].digest() == before
    with fsspec.open(address, "wb") as writer:
        writer.write(b"http://a/1\tanother cat\n")
    assert find_tables(address, tmp_path)[0].digest() != before


def test_what_is_not_there_is_refused_with_the_names_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cc13m: no such file, folder or glob; tables known .* cc12m, cc3m"):
        find_tables("cc13m", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds 0 files, none of them a table \(\.tsv"):
        find_tables(str(tmp_path), tmp_path)


def test_a_file_system_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distant = {"class": "not_installed.FileSystem", "err": "Install not_installed"}
    monkeypatch.setitem(known_implementations, "distant", distant)
    with pytest.raises(ValueError, match=r"^distant://bucket/t\.tsv: Install not_installed; expected a path, or"):
        find_tables("distant://bucket/t.tsv", tmp_path)
    with pytest.raises(ValueError, match=r"^nowhere://t\.tsv: Protocol not known: nowhere; expected a path, or"):
        find_tables("nowhere://t.tsv", tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_table_lies_with_its_authors_and_says_its_terms(name: str) -> None:
    assert PUBLISHED[name].url.startswith("https://storage.googleapis.com/")
    assert "owners" in PUBLISHED[name].terms


def test_a_file_of_that_name_is_nearer_than_the_published_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cc12m").write_bytes(CONTENT)
    assert content(find_tables("cc12m", tmp_path)[0]) == CONTENT
