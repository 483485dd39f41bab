from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from curation.folder import cache_dir, inside, is_address, map_table, reach


def test_names_below_a_folder_stay_as_they_are() -> None:
    for name in ("00000.tar", "files/a b.jpg", "a..b/..c/...", "files//twice"):
        assert inside(name) == name


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../../b", "a/..", "/etc/passwd"])
def test_names_that_lead_out_of_a_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a file below its folder"):
        inside(name)


def test_addresses_have_a_scheme() -> None:
    assert [is_address(place) for place in ("s3://bucket/run", "runs/demo", Path("/data"))] == [True, False, False]


@pytest.fixture
def no_old_stores() -> Iterator[None]:
    """Have S3 read the environment anew, and what others find be made anew: fsspec keeps file systems."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("no_old_stores")
@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, "Unable to locate credentials"),
        (
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            "Could not connect to the endpoint URL",
        ),
    ],
)
def test_a_store_that_cannot_be_asked_is_named_with_what_it_wants(
    environment: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # Neither this machine's own keys, nor those of a machine in Amazon's cloud.
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match=rf"^s3://bucket/t\.tsv: {found}.*named in the environment, for S3 in AWS_"):
        reach("s3://bucket/t.tsv")


def test_a_store_that_has_nothing_has_answered() -> None:
    filesystem, path = reach("memory://bucket/nothing")
    assert (filesystem.exists(path), path) == (False, "/bucket/nothing")


def test_copies_lie_in_the_named_folder_or_one_that_is_ours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "named"))
    assert cache_dir() == tmp_path / "named"
    monkeypatch.delenv("OVSEG_CACHE")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ours = tmp_path / f"ovseg-{os.getuid()}"
    assert cache_dir() == ours
    assert ours.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    (tmp_path / "ovseg-4000000").mkdir()
    with pytest.raises(PermissionError, match=r"belongs to another user; name a folder of your own in \$OVSEG_CACHE"):
        cache_dir()


def test_a_cut_table_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "samples.arrow").write_bytes(b"ARROW1 and then nothing")
    with pytest.raises(ValueError, match=r"samples\.arrow: not a whole Arrow file .*remove it and run its stage again"):
        map_table(tmp_path / "samples.arrow")
