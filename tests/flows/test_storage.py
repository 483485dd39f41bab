"""Working copies of folders on a real S3-compatible server (moto's) over HTTP."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from curation.manifest import MANIFEST, STARTED, close_stage, open_stage, read_manifest, write_part
from curation.schema import file_digest
from flows import storage
from flows.cli import main
from flows.places import Place, below, on_copies, working_copies
from flows.storage import Needs, working_copy

NEEDED = Needs(reads=("input",), writes=("stage",))
ROOT = Path(storage.__file__).resolve().parents[1]
# Killed at its first, second, ... send; forked, so that modules are loaded once.
KILLED = """
import os, signal, sys
import pandas, s3fs
from flows import storage
from tests.flows.test_storage import NEEDED, make_stage

bucket = sys.argv[1]
storage.BATCH = 1
for last in map(int, sys.argv[2:]):
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        continue
    with storage.working_copy(f"{bucket}/{last}", "test", NEEDED, period_s=1000) as folder:
        store = storage.Copy(f"{bucket}/{last}")._filesystem
        put, sends = store.put, []

        def put_and_die(*arguments):
            put(*arguments)
            sends.append(arguments)
            if len(sends) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        store.put = put_and_die
        make_stage(folder / "stage", 10)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test have a cache of its own."""
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))


def make_stage(folder: Path, first: int) -> None:
    """Make a stage of three parts, whose content depends on `first`; one of other content is made anew."""
    for voucher in sorted(folder.glob("*.json"), key=lambda path: path.name != MANIFEST):
        voucher.unlink()
    open_stage(folder, "test", {}, {})
    parts = [write_part(folder, f"part-{at}.parquet", pa.table({"n": [first + at]})) for at in range(3)]
    close_stage(folder, parts)


def at(bucket: str, name: str) -> str:
    return f"{bucket}/{name}"


def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "other machine"))


def test_a_folder_of_this_machine_is_worked_on_itself(tmp_path: Path) -> None:
    with working_copy(tmp_path, "test", NEEDED) as folder:
        assert folder == tmp_path


def test_what_a_stage_writes_is_in_the_store_and_on_the_next_machine(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working_copy(bucket, "test", NEEDED) as folder:
        make_stage(folder / "stage", 5)
        (folder / "stage" / "deep" / "er").mkdir(parents=True)
        (folder / "stage" / "deep" / "er" / "file").write_bytes(b"content")
        (folder / "stage" / ".scratch").mkdir()
        (folder / "stage" / ".scratch" / "file").write_bytes(b"not sent")
        (folder / "input").mkdir()
        (folder / "input" / "file").write_bytes(b"not sent")
    made = {path.name: path.read_bytes() for path in (folder / "stage").glob("*") if path.is_file()}
    assert len(made) == 8
    other_machine(tmp_path, monkeypatch)
    with working_copy(bucket, "test", NEEDED) as other:
        assert other != folder
        assert {path.name: path.read_bytes() for path in (other / "stage").glob("*") if path.is_file()} == made
        assert (other / "stage" / "deep" / "er" / "file").read_bytes() == b"content"
        assert not (other / "stage" / ".scratch").exists()
        assert not (other / "input").exists()


def test_nothing_is_moved_twice_and_the_bytes_are_told(bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flows")
    with working_copy(bucket, "test", NEEDED) as folder:
        (folder / "stage").mkdir(parents=True)
        (folder / "stage" / "a").write_bytes(bytes(3000))
        (folder / "stage" / "b").write_bytes(bytes(1234))
    with working_copy(bucket, "test", NEEDED):
        pass
    with working_copy(bucket, "test", NEEDED):
        (folder / "stage" / "b").write_bytes(bytes(999))
    told = [record.getMessage().split(": ", 1)[1] for record in caplog.records if record.name == "flows.storage"]
    assert told == [
        "fetched 0.000 MB in 0 files, sent 0.004 MB in 2 files",
        "fetched 0.000 MB in 0 files, sent 0.000 MB in 0 files",
        "fetched 0.000 MB in 0 files, sent 0.001 MB in 1 files",
    ]


def test_the_store_is_the_truth(bucket: str, put: Callable[[str, bytes], None], store: Any) -> None:
    for name in ("stage/changed", "stage/step-1/removed", "input/read"):
        put(at(bucket, name), b"first")
    with working_copy(bucket, "test", NEEDED) as folder:
        assert (folder / "input" / "read").read_bytes() == b"first"
    (folder / "stage" / "never sent").write_bytes(b"by a killed run")
    time.sleep(1.1)  # the store tells whole seconds
    put(at(bucket, "stage/changed"), b"again")
    store.rm_file(at(bucket, "stage/step-1/removed"))
    with working_copy(bucket, "test", NEEDED) as folder:
        assert [path.name for path in (folder / "stage").iterdir()] == ["changed"]
        assert (folder / "stage" / "changed").read_bytes() == b"again"


def test_what_a_stage_removes_leaves_the_store(bucket: str, store: Any) -> None:
    with working_copy(bucket, "test", NEEDED) as folder:
        make_stage(folder / "stage", 0)
    with working_copy(bucket, "test", NEEDED) as folder:
        (folder / "stage" / MANIFEST).unlink()
        (folder / "stage" / "part-1.parquet").unlink()
    store.invalidate_cache()
    names = {path.rsplit("/", 1)[1] for path in store.find(at(bucket, "stage"))}
    assert names == {STARTED, *(f"part-{at}.parquet.json" for at in range(3)), "part-0.parquet", "part-2.parquet"}


def test_finished_parts_are_sent_while_the_stage_goes_on(bucket: str, store: Any) -> None:
    with working_copy(bucket, "test", NEEDED, period_s=0.05) as folder:
        (folder / "stage").mkdir(parents=True)
        (folder / "stage" / "part").write_bytes(b"whole")
        deadline = time.monotonic() + 60
        while not store.find(at(bucket, "stage"), refresh=True):
            assert time.monotonic() < deadline, "the part did not arrive while the stage was going on"
            store.invalidate_cache()
            time.sleep(0.05)


def test_a_failed_stage_keeps_what_it_finished(bucket: str, store: Any) -> None:
    def fail() -> None:
        with working_copy(bucket, "test", NEEDED) as folder:
            (folder / "stage").mkdir(parents=True)
            (folder / "stage" / "part").write_bytes(b"whole")
            raise ValueError("a bad row")

    with pytest.raises(ValueError, match="a bad row"):
        fail()
    store.invalidate_cache()
    assert len(store.find(at(bucket, "stage"))) == 1


@pytest.mark.parametrize("name", ["../../../etc/passwd", "a/../../../b"])
def test_an_object_whose_name_leads_out_of_the_folder_is_refused(
    bucket: str, put: Callable[[str, bytes], None], tmp_path: Path, name: str
) -> None:
    put(at(bucket, f"stage/{name}"), b"root:x:0:0")
    with (
        pytest.raises(ValueError, match="expected the name of a file below its folder"),
        working_copy(bucket, "test", NEEDED),
    ):
        pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_linked_folder_is_refused_and_not_left_behind(bucket: str, tmp_path: Path) -> None:
    def link() -> None:
        with working_copy(bucket, "test", NEEDED) as folder:
            (folder / "stage").mkdir(parents=True)
            (folder / "stage" / "files").symlink_to(tmp_path)

    with pytest.raises(ValueError, match=r"cannot be sent; set download\.in_place = false"):
        link()
    with working_copy(bucket, "test", NEEDED) as folder:
        assert not (folder / "stage").exists()
    assert tmp_path.exists()


def test_an_unknown_kind_of_address_says_what_is_possible() -> None:
    with (
        pytest.raises(ValueError, match="expected a path, or an address like s3://bucket/name"),
        working_copy("nowhere://bucket", "test", NEEDED),
    ):
        pass


def test_a_stage_gets_paths_for_the_addresses_that_it_is_given(
    bucket: str, put: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    put(at(bucket, "model/weights"), b"weights")

    @on_copies
    def embed(data_dir: Path, model_dir: Path, batch_size: int = 3) -> tuple[Path, Path, int]:
        return data_dir, model_dir, batch_size

    data_dir, model_dir, batch_size = embed(tmp_path, below(TypeAdapter(Place).validate_python(bucket), "model"))
    assert (data_dir, batch_size) == (tmp_path, 3)
    assert (model_dir / "weights").read_bytes() == b"weights"
    with working_copies("report", {"runs": [tmp_path, bucket], "out": tmp_path}) as values:
        assert values == {"runs": [tmp_path, model_dir.parent], "out": tmp_path}


def test_commands_at_an_address_give_what_they_give_on_disk(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "captions.tsv"
    table.write_text("".join(f"http://a.example/{at}.jpg\ta cat on a sofa\n" for at in range(5)))
    answers = []
    for data in (f"{tmp_path}/data", f"{bucket}/data"):
        for command in (["ingest", str(table), "--out", data], ["parse", data], ["card", data]):
            assert main(command) == 0, command
            other_machine(tmp_path / command[0], monkeypatch)
        capsys.readouterr()
        assert main(["entities", data, "cat and sofa", "--format", "csv"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert answers[0].count("a cat on a sofa") == 5
    with working_copy(bucket, "test", Needs(reads=("data",))) as folder:
        for name in ("captions", "entities", "postings"):
            ours, theirs = (read_manifest(place / "data" / name) for place in (folder, tmp_path))
            assert ours == theirs
        assert (folder / "data" / "datacard.md").read_text() == (tmp_path / "data" / "datacard.md").read_text()


def test_a_place_is_a_path_unless_it_has_a_scheme() -> None:
    place = TypeAdapter(Place)
    assert place.validate_python("runs/demo") == Path("runs/demo")
    assert place.validate_python("s3://bucket/run") == "s3://bucket/run"
    assert below(place.validate_python("s3://bucket/run/"), "data") == "s3://bucket/run/data"
    assert below(Path("runs"), "data") == Path("runs/data")
    assert place.json_schema() == {"type": "string"}


def test_a_copy_is_not_worked_on_twice_at_a_time(bucket: str) -> None:
    with (
        working_copy(bucket, "test", NEEDED),
        pytest.raises(BlockingIOError, match="another process of this machine works on it; wait for its end"),
        working_copy(bucket, "test", NEEDED),
    ):
        pass


def test_readers_share_a_copy(bucket: str) -> None:
    reading = Needs(reads=("input",))
    with working_copy(bucket, "test", reading) as one, working_copy(bucket, "test", reading) as other:
        assert one == other


def test_the_last_files_are_those_by_which_rooms_know_a_finished_stage() -> None:
    from evaluation import classify, evaluate
    from training import state

    assert {MANIFEST, state.RUN, evaluate.RESULT, classify.RESULT} == set(storage._ENDINGS)
    assert {STARTED, state.STARTED, evaluate.STARTED} < set(storage._BEGINNINGS)


def is_sound(folder: Path) -> bool:
    """Return whether a stage is finished; each marker, and the manifest, must tell the truth of its parts."""
    for marker in folder.glob("*.parquet.json"):
        assert (folder / marker.stem).exists(), f"{marker.name} without its part"
        assert f'"{file_digest(folder / marker.stem)}"' in marker.read_text()
    if not (folder / MANIFEST).exists():
        return False
    for part in read_manifest(folder).parts:
        assert file_digest(folder / part.name) == part.digest
        assert (folder / f"{part.name}.json").exists()
    return True


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_whenever_a_run_is_killed_the_store_shows_no_marker_without_its_part(
    is_made_anew: bool, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sent are the first file, three parts and their markers, the last file.
    addresses = {last: f"{bucket}/{last}" for last in (1, 3, 6, 7, 8)}
    if is_made_anew:
        for address in addresses.values():
            with working_copy(address, "test", NEEDED) as folder:
                make_stage(folder / "stage", 0)
    subprocess.run([sys.executable, "-c", KILLED, bucket, *map(str, addresses)], cwd=ROOT, check=True)
    other_machine(tmp_path, monkeypatch)
    finished = []
    for last, address in addresses.items():
        with working_copy(address, "test", NEEDED) as folder:
            if is_sound(folder / "stage"):
                finished.append(last)
    assert finished == [8]
