from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from curation.captions import IngestConfig, ingest
from curation.download import DownloadConfig
from curation.source import PUBLISHED
from flows.cli import main
from flows.plan import Plan, plan_download, plan_ingest, plan_parse, plan_run, show
from flows.recipes import cc4m, cc12m


def test_a_published_table_is_planned_without_fetching_it(tmp_path: Path) -> None:
    plan = plan_ingest("cc12m", tmp_path, IngestConfig())
    assert plan.rows == PUBLISHED["cc12m"].num_rows == 12_423_374
    assert plan.network_bytes == PUBLISHED["cc12m"].num_bytes
    assert not list(tmp_path.iterdir())
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "cc12m.tsv").touch()
    assert plan_ingest("cc12m", tmp_path, IngestConfig()).network_bytes == 0


def test_a_plan_of_a_stage_reads_what_the_stage_before_has_left(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("".join(f"http://a/{i // 2}\ta cat {i}\n" for i in range(100)))
    ingest(tmp_path / "table.tsv", tmp_path)
    assert plan_parse(tmp_path).rows == 100
    assert plan_download(tmp_path, DownloadConfig(everything=True)).rows == 50
    with pytest.raises(FileNotFoundError, match="the stage that makes postings/ is not there"):
        plan_download(tmp_path, DownloadConfig())


def test_larger_images_take_more_disk_and_more_processes_less_time(tmp_path: Path) -> None:
    small, large = (plan_download(tmp_path, DownloadConfig(image_size=size), 1000) for size in (144, 288))
    assert large.disk_bytes == pytest.approx(4 * small.disk_bytes)
    slow, fast = (plan_download(tmp_path, DownloadConfig(processes=1, threads=n), 1000) for n in (1, 2))
    assert slow.time_s == pytest.approx(2 * fast.time_s)


def test_images_of_a_folder_need_no_network_and_in_place_no_disk(tmp_path: Path) -> None:
    copied, in_place = (
        plan_download(tmp_path, DownloadConfig(in_place=in_place), 1000, "photos") for in_place in (False, True)
    )
    assert copied.network_bytes == in_place.network_bytes == in_place.disk_bytes == 0
    assert copied.disk_bytes == pytest.approx(plan_download(tmp_path, DownloadConfig(), 1000).disk_bytes / 0.75)
    assert plan_download(tmp_path, DownloadConfig(), 1000, "http://127.0.0.1/photos").network_bytes > 0


def test_a_run_is_planned_up_to_its_images_without_what_is_there(tmp_path: Path) -> None:
    plans = plan_run(cc4m(), tmp_path)
    assert [plan.stage for plan in plans] == ["ingest", "parse", "download"]
    assert plan_run(cc12m(), tmp_path)[2].rows == 12_423_374
    (tmp_path / "table.tsv").write_text("http://a/1\ta cat\n" * 3)
    config = replace(cc4m(), table=str(tmp_path / "table.tsv"))
    ingest(tmp_path / "table.tsv", tmp_path / "data")
    assert [plan.stage for plan in plan_run(config, tmp_path)] == ["parse", "download"]


def test_amounts_are_written_for_people() -> None:
    text = show([Plan("parse", 12_345, 3.2e9, 0, 300, "why"), Plan("download", 7, 5e5, 2e12, 300_000, "so")])
    assert text.splitlines()[1].split() == ["parse", "12,345", "3.2", "GB", "-", "5.0", "min", "why"]
    assert text.splitlines()[2].split() == ["download", "7", "500", "kB", "2.0", "TB", "3.5", "days", "so"]


def test_the_command_prints_the_plan_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "cc4m", "--plan", "--out", str(tmp_path / "run")]) == 0
    assert main(["ingest", "cc12m", "--plan", "--out", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert out.count("12,423,374") == 3
    assert "Conceptual 12M, as published" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("instead", [["--verify"], ["--shards", "shards"]])
def test_what_fetches_nothing_has_no_plan(instead: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["download", "data", "--plan", *instead])
    assert f"argument {instead[0]}: not allowed with argument --plan" in capsys.readouterr().err
