import threading
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from curation.images import Partners, Samples, write_samples
from curation.schema import SAMPLES
from training.config import TrainConfig
from training.data import Chunk, TrainingSet, prefetched, read_chunks
from training.entity_masking import NounPrompts
from training.transforms import build_transform

Make = Callable[..., TrainConfig]


def training_set(data_dir: Path, config: TrainConfig, with_partners: bool = True) -> TrainingSet:
    samples = Samples(data_dir / "images")
    partners = Partners(data_dir / "pairs", samples) if with_partners else None
    nouns = NounPrompts(["boat", "car", "cat", "dog"], config.prompts)
    return TrainingSet(samples, partners, build_transform(config.augment, 32), nouns, "[MASK]", config)


def read(dataset: TrainingSet, num_chunks: int, first: int = 0, size: int = 8, ranks: int = 1) -> list[Chunk]:
    chunks = read_chunks(dataset, first, size, ranks, {})
    return list(islice(chunks, num_chunks))


def assert_same(left: list[Chunk], right: list[Chunk]) -> None:
    assert [chunk.words for chunk in left] == [chunk.words for chunk in right]
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a.image_BCHW, b.image_BCHW)
        if a.cross_image_BCHW is not None and b.cross_image_BCHW is not None:
            assert torch.equal(a.cross_image_BCHW, b.cross_image_BCHW)


def test_an_epoch_holds_every_image_once_and_the_next_in_another_order(data_dir: Path, tiny_config: Make) -> None:
    dataset = training_set(data_dir, tiny_config())
    first, second = ([word.key for c in read(dataset, 6, start) for word in c.words] for start in (0, 48))
    assert sorted(first) == sorted(second) == dataset.samples.keys.tolist()
    assert first != second


def test_an_example_is_masked_answered_and_paired(data_dir: Path, tiny_config: Make) -> None:
    dataset = training_set(data_dir, tiny_config())
    for word in read(dataset, 1)[0].words:
        entity = word.cross_entity
        assert entity in {"cat", "dog", "boat", "car"}
        ground = word.caption.removesuffix(".").split()[-1]
        assert word.caption == f"A small {entity} on the {ground}."
        assert word.question == f"A small [MASK] on the {ground}."
        assert word.answer.endswith(f" {entity}")
        prompts = [dataset.nouns.prompts[number] for number in word.nouns]
        assert prompts == [f"a photo of a {entity}", f"the {ground}"]


def test_all_captions_of_an_image_are_drawn(data_dir: Path, tiny_config: Make) -> None:
    dataset = training_set(data_dir, tiny_config())
    row = next(row for row in range(len(dataset)) if len(dataset.samples.captions(row)) == 2)
    key = dataset.samples.keys[row]
    drawn = {word.caption for chunk in read(dataset, 6 * 8) for word in chunk.words if word.key == key}
    assert drawn == {caption.text for caption in dataset.samples.captions(row)}


@pytest.mark.parametrize("loader_workers", [1, 2])
def test_the_number_of_loader_processes_changes_nothing(data_dir: Path, tiny_config: Make, loader_workers: int) -> None:
    plain = read(training_set(data_dir, tiny_config()), 7)
    assert_same(plain, read(training_set(data_dir, tiny_config(loader_workers=loader_workers)), 7))


def test_reading_goes_on_at_any_place(data_dir: Path, tiny_config: Make) -> None:
    dataset = training_set(data_dir, tiny_config())
    whole = read(dataset, 8)
    assert_same(whole[3:], read(dataset, 5, first=whole[2].words[-1].place + 1))


def test_ranks_share_each_batch(data_dir: Path, tiny_config: Make) -> None:
    dataset = training_set(data_dir, tiny_config())
    whole = read(dataset, 7)
    halves = [read(dataset, 7, first=rank, size=4, ranks=2) for rank in (0, 1)]
    for step in range(7):
        assert whole[step].words[0::2] == halves[0][step].words
        assert whole[step].words[1::2] == halves[1][step].words


def test_another_seed_gives_another_order(data_dir: Path, tiny_config: Make) -> None:
    keys = [[w.key for w in read(training_set(data_dir, tiny_config(seed=seed)), 1)[0].words] for seed in (0, 1)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_undecodable_images_are_left_out_and_counted_with_their_key(
    tmp_path: Path, tiny_config: Make, write_data: Callable[..., Path], loader_workers: int
) -> None:
    config = tiny_config(max_undecodable_rate=0.1, loader_workers=loader_workers)
    dataset = training_set(write_data(tmp_path / "data", broken=(3, 20)), config)
    chunks = read(dataset, 6)
    broken = {int(dataset.samples.keys[row]) for row in (3, 20)}
    undecodable = {key: reason for chunk in chunks for key, reason in chunk.undecodable.items()}
    assert set(undecodable) == broken
    assert all("cannot identify image file" in reason for reason in undecodable.values())
    words = [word for chunk in chunks for word in chunk.words]
    assert [len(chunk) for chunk in chunks] == [8] * 6
    # The next of the order move up: 46 images of the first epoch, then two of the second.
    assert sorted(word.key for word in words[:46]) == sorted(set(dataset.samples.keys.tolist()) - broken)
    assert [word.place for word in words] == sorted({word.place for word in words})
    assert words[46].place >= 48


def test_a_batch_whose_images_are_all_undecodable_is_filled_by_the_next(
    tmp_path: Path, tiny_config: Make, write_data: Callable[..., Path]
) -> None:
    dataset = training_set(write_data(tmp_path / "data", broken=(3, 20)), tiny_config(max_undecodable_rate=0.1))
    plain, single = read(dataset, 5), read(dataset, 40, size=1)
    assert [word for chunk in plain for word in chunk.words] == [word for chunk in single for word in chunk.words]
    assert torch.equal(torch.cat([c.image_BCHW for c in plain]), torch.cat([c.image_BCHW for c in single]))
    assert {chunk.image_BCHW.dtype for chunk in single} == {torch.uint8}


def test_an_undecodable_partner_gives_way_to_another_or_to_none(
    tmp_path: Path, tiny_config: Make, write_data: Callable[..., Path]
) -> None:
    # The partners of row 0 are rows 4 and 8.
    for broken, has_partner in (((4,), True), ((4, 8), False)):
        data_dir = write_data(tmp_path / str(len(broken)), broken=broken)
        dataset = training_set(data_dir, tiny_config(max_undecodable_rate=1.0))
        words = [
            (chunk, row)
            for chunk in read(dataset, 5)
            for row, word in enumerate(chunk.words)
            if word.key == dataset.samples.keys[0] and word.place < 48
        ]
        chunk, row = words[0]
        assert chunk.cross_image_BCHW is not None
        assert (chunk.words[row].cross_entity is not None) == has_partner
        assert bool(chunk.cross_image_BCHW[row].any()) == has_partner


def test_too_many_undecodable_images_stop_the_run(
    tmp_path: Path, tiny_config: Make, write_data: Callable[..., Path]
) -> None:
    dataset = training_set(write_data(tmp_path / "data", broken=range(0, 48, 4)), tiny_config())
    with pytest.raises(RuntimeError, match=r"of this worker's 48 images cannot be decoded.*0\.01 allows; some keys: "):
        read(dataset, 6)


def test_no_stored_image_is_refused(tmp_path: Path, tiny_config: Make, write_data: Callable[..., Path]) -> None:
    data_dir = write_data(tmp_path / "data", count=0)
    with pytest.raises(ValueError, match="no stored image to train on"):
        training_set(data_dir, tiny_config(), with_partners=False)


def test_prefetching_keeps_order_and_hands_on_errors() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise OSError("shard gone")

    values = prefetched(source())
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="shard gone"):
        next(values)
    assert list(prefetched(iter("abc"))) == ["a", "b", "c"]


def test_prefetching_stops_its_thread_when_the_reader_leaves() -> None:
    values = prefetched(count(), depth=1)
    assert next(values) == 0
    assert "prefetch" in {thread.name for thread in threading.enumerate()}
    values.close()
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_all_nouns_are_masked_on_request_and_captions_without_their_spans_refused(
    data_dir: Path, tmp_path: Path, tiny_config: Make, write_data: Callable[..., Path]
) -> None:
    chunk = training_set(data_dir, tiny_config(masked="nouns")).__getitems__([0])
    assert chunk.words[0].question == "A small [MASK] on the [MASK]."
    assert chunk.words[0].answer.split()[-3:-1] == [chunk.words[0].caption.split()[2], "and"]
    folder = write_data(tmp_path / "data", count=8)
    bare = Samples(folder / "images").table.to_pylist()
    for row in bare:
        for caption in row["captions"]:
            caption["nouns"] = None
    write_samples(folder / "images", [pa.Table.from_pylist(bare, SAMPLES)], "bare")
    with pytest.raises(ValueError, match=r"masked = 'nouns': .* parse them with --nouns"):
        training_set(folder, tiny_config(masked="nouns"), with_partners=False)
