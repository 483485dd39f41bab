"""Stage: images/ and a model to embeddings/, by which pairs may be drawn and searched."""

import numpy as np
from numpy.typing import NDArray
from prefect import flow

from curation.embeddings import EmbedConfig, write_embeddings
from curation.images import Samples
from curation.manifest import Manifest
from curation.schema import file_digest
from flows.limits import DAY_S
from flows.places import Place, on_copies
from flows.settings import described
from model.embed import Embedder
from model.weights import WEIGHTS


@flow(name="embed", flow_run_name="{data_dir}", timeout_seconds=7 * DAY_S)
@described
@on_copies
def embed(
    data_dir: Place,
    model_dir: Place,
    config: EmbedConfig = EmbedConfig(),
    device: str | None = None,
    batch_size: int = 128,
) -> Manifest:
    """Write the model's embedding of every stored image, or of its captions, by parts; on a GPU if there is one."""
    embedder = Embedder(model_dir, device, batch_size)

    def captions(samples: Samples, rows: range) -> NDArray[np.float32]:
        stored = samples.table["captions"].slice(rows.start, len(rows)).to_pylist()
        return embedder.captions([[caption["text"] for caption in each] for each in stored])

    def images(samples: Samples, rows: range) -> NDArray[np.float32]:
        return np.concatenate(
            [
                embedder.images([samples.read(row) for row in rows[first : first + batch_size]])
                for first in range(0, len(rows), batch_size)
            ]
        )

    embed_rows = captions if config.of == "captions" else images
    return write_embeddings(data_dir, embed_rows, file_digest(model_dir / WEIGHTS), config)
