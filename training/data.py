"""The endless stream of training examples: stored images with a caption, its masked forms and a partner image.

The stream is the epochs' permutations one after another; *place* p is image p % N of epoch p // N. Rank r of W reads
places r, r + W, r + 2W, ... Everything random is a function of (seed, epoch, key), so the loader's whole state is its
next place, and the number of loader processes changes nothing.

An undecodable image is counted with its key and left out: the next of its rank's places moves up. An undecodable
partner image gives way to the next of the drawn order of partners; an image without one has no cross image.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from curation.images import Partners, Samples
from evaluation.templates import FULL_80
from training.config import TrainConfig
from training.entity_masking import NounPrompts, answer, entities_of, masked_mentions, question
from training.transforms import Transform, UndecodableError

T = TypeVar("T")


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed that is a function of its parts."""
    return xxhash.xxh3_64_intdigest("/".join(map(str, parts)).encode()) >> 1


def generator_of(*parts: int | str) -> np.random.Generator:
    """Return a generator that is a function of its parts."""
    return np.random.Generator(np.random.Philox(key=xxhash.xxh3_128_intdigest("/".join(map(str, parts)).encode())))


@dataclass(frozen=True)
class Words:
    """What the text side of one example needs."""

    place: int
    """place in the stream"""
    key: int
    """key of the image"""
    caption: str
    """one of the image's captions"""
    question: str
    """the caption with its mentions masked"""
    answer: str
    """a template and the caption's entities"""
    nouns: tuple[int, ...]
    """numbers of the caption's nouns among the noun prompts"""
    cross_entity: str | None
    """entity shared with the partner image; None without a partner"""
    seed: int
    """seed of what is drawn when the caption's tokens are known"""


@dataclass(frozen=True)
class Chunk:
    """Consecutive examples of one rank.

    Shapes: image_BCHW and cross_image_BCHW [B, 3, H, W], uint8 or, by transforms that normalise, float; a cross image
    is zeros where words have no cross_entity.
    """

    words: list[Words]
    image_BCHW: Tensor
    cross_image_BCHW: Tensor | None
    """None when there are no pairs"""
    undecodable: dict[int, str]
    """keys met on the way that could not be decoded -> reason"""

    def __len__(self) -> int:
        return len(self.words)

    def __add__(self, other: Chunk) -> Chunk:
        cross_image_BCHW = None
        if self.cross_image_BCHW is not None and other.cross_image_BCHW is not None:
            cross_image_BCHW = torch.cat([self.cross_image_BCHW, other.cross_image_BCHW])
        image_BCHW = torch.cat([self.image_BCHW, other.image_BCHW])
        return Chunk(self.words + other.words, image_BCHW, cross_image_BCHW, self.undecodable | other.undecodable)

    def split(self, size: int) -> tuple[Chunk, Chunk]:
        """Return the first `size` examples, with all that could not be decoded, and the rest."""
        cross = self.cross_image_BCHW
        return (
            Chunk(self.words[:size], self.image_BCHW[:size], None if cross is None else cross[:size], self.undecodable),
            Chunk(self.words[size:], self.image_BCHW[size:], None if cross is None else cross[size:], {}),
        )


class TrainingSet(Dataset[Chunk]):
    """Places of the stream to chunks of examples."""

    def __init__(
        self,
        samples: Samples,
        partners: Partners | None,
        transform: Transform,
        nouns: NounPrompts,
        mask_token: str,
        config: TrainConfig,
    ) -> None:
        if not len(samples):
            raise ValueError("no stored image to train on: the data card of images/ says what was left out and why")
        if config.masked == "nouns" and not _has_nouns(samples):
            raise ValueError(
                "masked = 'nouns': the captions of these images were parsed without the spans of their nouns; parse "
                "them with --nouns (recipes: --set parse.nouns=true) and download into a new data folder"
            )
        self.samples = samples
        self.partners = partners
        self.transform = transform
        self.nouns = nouns
        self.mask_token = mask_token
        self.config = config
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, places: list[int]) -> Chunk:
        """Return the examples of some places, in order, without those whose image cannot be decoded."""
        words: list[Words] = []
        images: list[Tensor] = []
        cross_images: list[Tensor] = []
        undecodable: dict[int, str] = {}
        for place in places:
            epoch, position = divmod(place, len(self))
            row = int(self._order(epoch)[position])
            generator = generator_of(self.config.seed, epoch, int(self.samples.keys[row]))
            image_CHW = self._image(row, generator, undecodable)
            if image_CHW is None:
                continue
            cross_entity = None
            if self.partners is not None:
                cross_image_CHW, cross_entity = self._partner(self.partners, row, generator, undecodable)
                cross_images.append(torch.zeros_like(image_CHW) if cross_image_CHW is None else cross_image_CHW)
            words.append(self._words(place, row, generator, cross_entity))
            images.append(image_CHW)
        return Chunk(words, _stack(images), None if self.partners is None else _stack(cross_images), undecodable)

    def _permutation(self, epoch: int) -> NDArray[np.int32]:
        return generator_of(self.config.seed, epoch, "order").permutation(np.arange(len(self), dtype=np.int32))

    def _image(self, row: int, generator: np.random.Generator, undecodable: dict[int, str]) -> Tensor | None:
        try:
            return self.transform(self.samples.read(row), generator)
        except UndecodableError as error:
            undecodable[int(self.samples.keys[row])] = str(error)
            return None

    def _partner(
        self, partners: Partners, row: int, generator: np.random.Generator, undecodable: dict[int, str]
    ) -> tuple[Tensor | None, str | None]:
        rows, entities = partners.of(row)
        for choice in generator.permutation(len(rows)):
            image_CHW = self._image(int(rows[choice]), generator, undecodable)
            if image_CHW is not None:
                return image_CHW, entities[choice]
        return None, None

    def _words(self, place: int, row: int, generator: np.random.Generator, cross_entity: str | None) -> Words:
        captions = self.samples.captions(row)
        caption = captions[int(generator.integers(len(captions)))]
        entities = entities_of(caption.mentions)
        template = FULL_80[int(generator.integers(len(FULL_80)))]
        masked = masked_mentions(caption, self.config.masked, generator)
        return Words(
            place=place,
            key=int(self.samples.keys[row]),
            caption=caption.text,
            question=question(caption.text, masked, self.mask_token),
            answer=answer(entities_of(masked), template),
            nouns=self.nouns.numbers(caption.text, entities),
            cross_entity=cross_entity,
            seed=int(generator.integers(2**63)),
        )


def read_chunks(
    dataset: TrainingSet, first_place: int, size: int, num_ranks: int, undecodable: dict[int, str]
) -> Iterator[Chunk]:
    """Yield chunks of exactly `size` examples without end, from every `num_ranks`-th place on.

    `undecodable` are keys that this rank has found before; they count towards the share that is allowed.

    Raises: RuntimeError when more images turn out undecodable than the config allows.
    """
    config = dataset.config
    chunks: Iterator[Chunk]
    if config.loader_workers == 0:
        chunks = map(dataset.__getitems__, _places(first_place, size, num_ranks))
    else:
        places = _places(first_place, size, num_ranks)
        # A generator of its own: the loader must not draw from the one that the model's noise comes from.
        generator = torch.Generator()
        chunks = iter(
            DataLoader(
                dataset,
                batch_sampler=places,
                num_workers=config.loader_workers,
                collate_fn=_unchanged,
                generator=generator,
            )
        )
    known = dict(undecodable)
    pending: Chunk | None = None
    for chunk in chunks:
        known |= chunk.undecodable
        if len(known) > config.max_undecodable_rate * len(dataset) / num_ranks:
            some = ", ".join(f"{key} ({reason})" for key, reason in list(known.items())[:3])
            raise RuntimeError(
                f"{len(known)} of this worker's {len(dataset) // num_ranks} images cannot be decoded, more than "
                f"max_undecodable_rate = {config.max_undecodable_rate} allows; some keys: {some}"
            )
        pending = chunk if pending is None else pending + chunk
        while pending is not None and len(pending) >= size:
            full, rest = pending.split(size)
            yield full
            pending = rest if len(rest) else None


def prefetched(source: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield what `source` yields, drawn by a thread that runs at most `depth` ahead; its exceptions come through."""
    ready: queue.Queue[T | BaseException] = queue.Queue(depth)
    stopped = threading.Event()

    def put(value: T | BaseException) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(value, timeout=0.1)
                return

    def draw() -> None:
        try:
            for value in source:
                put(value)
                if stopped.is_set():
                    return
            put(StopIteration())
        except BaseException as error:  # noqa: BLE001 - handed to the reader
            put(error)

    thread = threading.Thread(target=draw, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(value := ready.get(), BaseException):
            yield value
        if not isinstance(value, StopIteration):
            raise value
    finally:
        stopped.set()
        thread.join()


def _has_nouns(samples: Samples) -> bool:
    captions = (caption for row in range(len(samples)) for caption in samples.captions(row))
    return next((caption.nouns is not None for caption in captions if caption.mentions), False)


def _places(first: int, size: int, step: int) -> Iterator[list[int]]:
    for start in itertools.count(first, size * step):
        yield list(range(start, start + size * step, step))


def _stack(images: list[Tensor]) -> Tensor:
    return torch.stack(images) if images else torch.empty(0, dtype=torch.uint8)  # joins bytes and floats alike


def _unchanged(chunk: Any) -> Any:  # DataLoader wants a list; the dataset gives a chunk already
    return chunk
