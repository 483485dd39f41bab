"""The drawn partners of a data folder, and its images that are similar to an image, a caption or a vector."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation import pairs
from curation.caption_vectors import CaptionVectors
from curation.images import Partners, Samples
from curation.manifest import read_manifest
from curation.neighbours import VECTORS_FILE, StoredSearch
from curation.schema import SAMPLES


class PairIndex:
    """Answers which partners an image has and which images are similar, from files that stay on disk."""

    def __init__(self, data_dir: Path | str) -> None:
        self.pairs_dir = Path(data_dir) / "pairs"
        self._manifest = read_manifest(self.pairs_dir)
        self._samples = Samples(Path(data_dir) / "images")
        self._postings_dir = Path(data_dir) / "postings"
        self._entity_names = Partners(self.pairs_dir, self._samples).entity_names

    def partners(self, key: int) -> pa.Table:
        """Return the pairs (`PAIRS`) drawn for an image; none when it has no partner.

        Raises: KeyError when no image with this key is stored.
        """
        part = self._manifest.parts[self._samples.position(key) // pairs.IMAGES_PER_PART]
        return pq.read_table(self.pairs_dir / part.name, filters=[("key", "=", key)])

    def similar(self, like: int | str | NDArray[np.floating], k: int, entity: str | None = None) -> pa.Table:
        """Return `key` and `score` of the k images, or fewer, most similar to an image, a caption or a vector.

        The best come first; the score is the cosine. A key's own image is left out. With an `entity`, all images that
        have it are compared; without, the manifest tells the recall of the search. A caption needs pairs/ made with
        vectors of words. A vector is one of the model that made the embeddings, as for an image that is not stored.

        Shapes: a vector is [d], of any length.
        Raises: KeyError for a key that is not stored; ValueError for an unknown entity, a vector of another size, or a
        caption where vectors are not of words; FileNotFoundError when pairs/ has no vectors.
        """
        own = None
        if isinstance(like, int | np.integer):
            own = self._samples.position(int(like))
            vector = self._search.vectors[own].astype(np.float32)
        else:
            vector = self._vector(like)
        rows = None if entity is None else self._having(entity)
        scores, rows = self._search(vector, k + (own is not None), rows)
        is_other = rows != own
        return pa.table({"key": self._samples.keys[rows[is_other]][:k], "score": scores[is_other][:k]})

    @cached_property
    def _search(self) -> StoredSearch:
        if not (self.pairs_dir / VECTORS_FILE).exists():
            raise FileNotFoundError(
                f"{self.pairs_dir / VECTORS_FILE}: not there, since pairs/ was made with vectors = None; make it anew"
            )
        return StoredSearch(self.pairs_dir)

    @cached_property
    def _words(self) -> CaptionVectors:
        config = self._manifest.config
        if config["vectors"] != "words":
            raise ValueError(
                f"{self.pairs_dir}: its vectors are embeddings of {config['vectors']}, not of words; give the vector "
                f"that the same model makes of the caption"
            )
        *documents, num_rows = np.load(self.pairs_dir / pairs.WORDS_FILE)
        return CaptionVectors(np.array(documents), int(num_rows), config["word_dims"], config["seed"])

    def _vector(self, like: str | NDArray[np.floating]) -> NDArray[np.float32]:
        if isinstance(like, str):
            captions: Any = pa.array([[{"text": like, "mentions": None}]], SAMPLES.field("captions").type)
            vectors = self._words.vectors(captions)
            return vectors.reshape(-1)
        dims = self._search.vectors.shape[1]
        if like.shape != (dims,):
            raise ValueError(f"a vector of shape {like.shape}: expected ({dims},), as those in {self.pairs_dir}")
        return like.astype(np.float32)

    def _having(self, entity: str) -> NDArray[np.int64]:
        if entity not in self._entity_names:
            raise ValueError(f"entity {entity!r} is unknown; known: {', '.join(self._entity_names)}")
        keys = np.unique(pairs.read_postings(self._postings_dir, [("entity", "=", entity)])["key"].to_numpy())
        rows = np.searchsorted(self._samples.keys, keys)
        is_stored = self._samples.keys[np.minimum(rows, len(self._samples) - 1)] == keys
        stored: NDArray[np.int64] = rows[is_stored]
        return stored
