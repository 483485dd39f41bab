"""What became of the draw of pairs: a reason for each image with too few, how often images serve, and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.datacard import Figure, write_datacard
from curation.draw import Ints, Rows, Slices
from curation.manifest import replacing
from curation.neighbours import Recall

LEFT_OUT_FILE = "left_out.parquet"
LEFT_OUT = pa.schema([("key", pa.int64()), ("partners", pa.int32()), ("reason", pa.string())])
"""left_out.parquet: one row per image with fewer partners than asked for."""

NO_ENTITY = "no entity"
NO_OTHER_IMAGE = "no other image with its entities"
FEWER_IMAGES = "fewer images near it with its entities"
FULL_IMAGES = "images near it serve as often as max_serves allows"

_EXAMPLES = 4
_SERVES = (0, 1, 5, 10, 20, 50, 100)


class PairsTally:
    """Counts pairs as they are drawn.

    `slices` hold the entities of all rows, `shared` those that can give a partner, `before_cap` the slots that rows
    would have got without a cap on how often an image serves.
    """

    def __init__(self, keys: Ints, names: list[str], slices: Slices, shared: Slices, before_cap: Rows | None) -> None:
        self._keys = keys
        self._names = names
        self._slices = slices
        self._shared = shared
        self._before_cap = before_cap
        self._serves = np.zeros(len(shared.rows), np.int64)
        self._left_out = [LEFT_OUT.empty_table()]
        self._examples: dict[int, list[tuple[int, int]]] = {}
        self._num_images = np.bincount(slices.entry_codes, minlength=len(names))

    def add(self, rows: Ints, slots: Rows) -> None:
        """Count the slots drawn for rows. Shapes: [n], [n, num_partners]."""
        self._serves += np.bincount(slots[slots >= 0], minlength=len(self._serves))
        self._left_out.append(self._reasons(rows, slots))
        partners, codes = self._shared.partners(slots[:, 0])
        for code in np.unique(codes[codes >= 0]).tolist():
            own = self._examples.setdefault(code, [])
            places = np.flatnonzero(codes == code)[: _EXAMPLES - len(own)]
            own += zip(rows[places].tolist(), partners[places].tolist(), strict=True)

    def examples(self, num_entities: int) -> list[tuple[str, list[tuple[int, int]]]]:
        """Return a few pairs of rows of each of the most frequent entities."""
        most = np.argsort(-self._num_images, kind="stable")[:num_entities].tolist()
        return [(self._names[code], self._examples[code]) for code in most if code in self._examples]

    def write(self, pairs_dir: Path, num_pairs: int, recalls: Mapping[str, Recall]) -> dict[str, int]:
        """Write left_out.parquet and the data card, and return how many images have too few partners, by reason."""
        left_out = pa.concat_tables(self._left_out)
        with replacing(pairs_dir / LEFT_OUT_FILE) as path:
            pq.write_table(left_out, path, compression="zstd")
        without = left_out.filter(pc.equal(left_out["partners"], 0))
        by_image = np.bincount(self._shared.rows, self._serves, len(self._keys)).astype(np.int64)
        figures: dict[str, Figure] = {
            "images": len(self._keys),
            "images with partners": len(self._keys) - len(without),
            "images with fewer partners than asked for": len(left_out) - len(without),
            "pairs": num_pairs,
            "entities": int((self._num_images > 0).sum()),
            "entities of a single image": int((self._num_images == 1).sum()),
            "images that serve as a partner": int((by_image > 0).sum()),
            "most pairs that one image serves in": int(by_image.max(initial=0)),
        }
        if self._before_cap is not None:
            wished = np.bincount(self._shared.rows[self._before_cap[self._before_cap >= 0]])
            figures["most pairs that one image would serve in without a cap"] = int(wished.max(initial=0))
        figures |= {f"{what} found, on sampled images, rate": each.rate for what, each in recalls.items() if each.asked}
        drops = {NO_ENTITY: 0, NO_OTHER_IMAGE: 0, **Counter(without["reason"].to_pylist())}
        lasts = [*(after - 1 for after in _SERVES[1:]), max(_SERVES[-1], int(by_image.max(initial=0)))]
        spread = np.bincount(np.searchsorted(_SERVES, by_image, side="right") - 1, minlength=len(_SERVES)).tolist()
        serving = [
            {"pairs": f"{first}–{last}", "images": number}
            for first, last, number in zip(_SERVES, lasts, spread, strict=True)
        ]
        tables = {"entities": self._entities(), "how often an image serves": serving}
        write_datacard(pairs_dir, "Pairs", figures, drops, tables)
        return {NO_ENTITY: 0, NO_OTHER_IMAGE: 0, **Counter(left_out["reason"].to_pylist())}

    def _reasons(self, rows: Ints, slots: Rows) -> pa.Table:
        num_partners = (slots >= 0).sum(axis=1)
        is_short = num_partners < slots.shape[1]
        rows, num_partners = rows[is_short], num_partners[is_short]
        has_entity, has_other = (
            each.row_starts[rows + 1] > each.row_starts[rows] for each in (self._slices, self._shared)
        )
        wished = num_partners if self._before_cap is None else (self._before_cap[rows] >= 0).sum(axis=1)
        reasons = np.select(
            [~has_entity, ~has_other, wished > num_partners], [NO_ENTITY, NO_OTHER_IMAGE, FULL_IMAGES], FEWER_IMAGES
        )
        columns = [self._keys[rows], num_partners.astype(np.int32), pa.array(reasons.tolist(), pa.string())]
        return pa.table(columns, schema=LEFT_OUT)

    def _entities(self) -> list[dict[str, Figure]]:
        """Return a row per entity, the most frequent first."""
        rows: list[dict[str, Figure]] = []
        for code in np.argsort(-self._num_images, kind="stable").tolist():
            own = self._serves[self._shared.starts[code] : self._shared.starts[code + 1]]
            rows.append(
                {
                    "entity": self._names[code],
                    "images": int(self._num_images[code]),
                    "different partners": int((own > 0).sum()),
                    "most pairs of one partner": int(own.max(initial=0)),
                }
            )
        return rows
