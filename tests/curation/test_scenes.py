"""Drawn scenes: the same for a seed whoever draws them, captioned truthfully, masked exactly."""

from __future__ import annotations

import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.manifest import Part, read_manifest
from curation.scenes import ScenesConfig, draw_scenes
from curation.scenes_captions import captions
from curation.scenes_drawing import GROUNDS, Level, draw
from curation.scenes_things import ENTITIES
from curation.schema import file_digest

SMALL = ScenesConfig(num_images=40, num_held_out=5, num_validation=3, fault_rate=0.3, slow_rate=0.2)
LEVELS: tuple[Level, ...] = ("plain", "shaded", "textured")


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


@pytest.fixture(scope="module")
def scenes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scenes(tmp_path_factory.mktemp("drawn") / "scenes", SMALL)


def test_the_same_seed_gives_the_same_bytes(scenes_dir: Path, tmp_path: Path) -> None:
    assert digests(draw_scenes(tmp_path / "again", SMALL)) == digests(scenes_dir)


def test_another_seed_gives_other_scenes(scenes_dir: Path, tmp_path: Path) -> None:
    other = draw_scenes(tmp_path / "other", replace(SMALL, seed=1))
    assert digests(other)["images/000000.jpg"] != digests(scenes_dir)["images/000000.jpg"]


def test_the_number_of_workers_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.scenes.PART_SIZE", 10)
    alone = draw_scenes(tmp_path / "alone", SMALL)
    # Forked workers inherit the small part size.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        together = draw_scenes(tmp_path / "together", SMALL, pool.map)
    assert digests(alone) == digests(together)


def test_more_scenes_keep_those_before(scenes_dir: Path, tmp_path: Path) -> None:
    longer = draw_scenes(tmp_path / "longer", replace(SMALL, num_images=50))
    assert (longer / "images/000039.jpg").read_bytes() == (scenes_dir / "images/000039.jpg").read_bytes()
    assert (longer / "captions.tsv").read_text().startswith((scenes_dir / "captions.tsv").read_text())


def test_a_finished_folder_is_left_as_it_is(scenes_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in scenes_dir.rglob("*")}
    draw_scenes(scenes_dir, SMALL)
    assert {path: path.stat().st_mtime_ns for path in scenes_dir.rglob("*")} == before


def test_an_interrupted_draw_is_completed_without_redrawing_finished_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.scenes.PART_SIZE", 10)

    def stop_after_two(function: Callable[[range], Part], parts: Iterable[range]) -> Iterator[Part]:
        for number, part in enumerate(parts):
            if number == 2:
                raise KeyboardInterrupt
            yield function(part)

    with pytest.raises(KeyboardInterrupt):
        draw_scenes(tmp_path / "scenes", SMALL, stop_after_two)
    assert not (tmp_path / "scenes" / "manifest.json").exists()
    first = (tmp_path / "scenes" / "images" / "000000.jpg").stat().st_mtime_ns
    draw_scenes(tmp_path / "scenes", SMALL)
    assert (tmp_path / "scenes" / "images" / "000000.jpg").stat().st_mtime_ns == first
    assert digests(tmp_path / "scenes") == digests(draw_scenes(tmp_path / "whole", SMALL))


def test_a_folder_of_another_config_is_refused(scenes_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.level = 'textured' \(now 'plain'\); remove the folder"):
        draw_scenes(scenes_dir, replace(SMALL, level="plain"))


def test_the_table_holds_every_scene_and_its_faults_are_counted(scenes_dir: Path) -> None:
    header, *rows = (scenes_dir / "captions.tsv").read_text().splitlines()
    assert header == "url\tcaption"
    addresses = [row.split("\t")[0] for row in rows]
    assert sorted({address[-10:-4] for address in addresses}) == [f"{i:06d}" for i in range(40)]
    kinds = Counter(f"addresses {url.split('/')[-2]}" for url in set(addresses))
    counts = read_manifest(scenes_dir).counts
    assert kinds == {name: count for name, count in counts.items() if name.startswith("addresses ")}
    assert {"addresses images", "addresses slow"} < set(kinds)
    assert len(kinds) > 4


def test_the_benchmark_has_the_layout_of_voc(scenes_dir: Path) -> None:
    folder = scenes_dir / "benchmark"
    assert (folder / "classes.txt").read_text().split() == ["background", *ENTITIES]
    names, others = ((folder / f"ImageSets/Segmentation/{split}.txt").read_text().split() for split in ("val", "train"))
    assert (len(names), len(others)) == (5, 3)
    assert not set(names) & set(others)
    for name in names + others:
        image, mask = (
            Image.open(folder / f"JPEGImages/{name}.jpg"),
            Image.open(folder / f"SegmentationClass/{name}.png"),
        )
        assert image.size == mask.size == (64, 64)
        assert mask.mode == "P"
        assert np.asarray(mask).max() <= len(ENTITIES)


def test_held_out_scenes_are_no_training_scenes(scenes_dir: Path) -> None:
    training = {path.read_bytes() for path in (scenes_dir / "images").iterdir()}
    held_out = {path.read_bytes() for path in (scenes_dir / "benchmark/JPEGImages").iterdir()}
    assert len(held_out) == 5 + 3
    assert not training & held_out


@pytest.mark.parametrize("level", LEVELS)
def test_labels_are_of_the_things_drawn(level: Level) -> None:
    for seed in range(15):
        scene = draw(np.random.default_rng(seed), level, 64)
        labelled = {ENTITIES[label - 1] for label in np.unique(scene.labels) if label}
        assert labelled == {thing.entity for thing in scene.things if thing.entity}
        assert scene.ground in GROUNDS


def test_a_flat_thing_fills_its_mask_and_nothing_else() -> None:
    # On level plain with one thing, a pixel far from the ground's colour is a thing's pixel, and the other way round.
    agree = total = 0
    for seed in range(40):
        scene = draw(np.random.default_rng(seed), "plain", 64)
        if len(scene.things) != 1 or scene.things[0].entity in {"clock", "boat", "umbrella"}:
            continue
        ground = np.median(scene.pixels[scene.labels == 0], axis=0)
        apart = np.abs(scene.pixels - ground).max(axis=-1) > 30
        agree += int((apart & (scene.labels > 0)).sum())
        total += int((apart | (scene.labels > 0)).sum())
    assert agree / total > 0.9


def test_colour_does_not_tell_the_thing_on_the_textured_level() -> None:
    seen: dict[str, set[str]] = {entity: set() for entity in ENTITIES}
    for seed in range(150):
        for thing in draw(np.random.default_rng(seed), "textured", 64).things:
            if thing.entity:
                seen[thing.entity].add(thing.colour.removeprefix("light "))
    assert min(len(colours) for colours in seen.values()) >= 6  # of eight


def test_captions_name_what_is_drawn_or_nothing() -> None:
    forms = {"building": "house"}
    unnamed = plurals = several = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        scene = draw(rng, "textured", 64)
        drawn = Counter(thing.entity for thing in scene.things if thing.entity)
        written = captions(rng, scene)
        several += len(written) > 1
        for caption in written:
            words = re.findall("[a-z]+", caption.lower())
            for word in words:
                entity = forms.get(word.removesuffix("s"), word.removesuffix("s"))
                if entity in ENTITIES:
                    assert entity in drawn, caption
                    assert word.endswith("s") == (drawn[entity] > 1), caption
                    plurals += word.endswith("s")
            named = {forms.get(word.removesuffix("s"), word.removesuffix("s")) for word in words} & set(ENTITIES)
            unnamed += len(named) < len(drawn)
    assert several > 12
    assert plurals > 6
    assert 4 < unnamed < 30


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_images": 0}, "num_images = 0: use 1 or more"),
        ({"port": 80}, "port = 80: use 1024 or more"),
        ({"port": 70000}, "port = 70000: use a port from 1024 to 65535"),
        ({"fault_rate": 0.9, "slow_rate": 0.2}, "sum is at most 1"),
        ({"slow_s": 60.0}, "slow_s = 60.0: use 0 to 5 seconds"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ScenesConfig(**setting)  # type: ignore[arg-type]
