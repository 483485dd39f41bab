"""Stage: trained models and a benchmark folder to evaluation/."""

from pathlib import Path
from typing import Any

from prefect import flow

import evaluation.evaluate
from evaluation.config import Protocol
from model import OVSegmentor, add_metrics, initial
from model.weights import CARD


@flow(name="evaluate")
def evaluate(
    model_dirs: dict[str, Path],
    benchmark: str,
    root: Path,
    out_dir: Path,
    protocol: Protocol = Protocol(),
    untrained_seed: int | None = None,
) -> dict[str, Any]:
    """Measure models, and the baselines beside them, on a benchmark they have never seen, and tell their cards.

    With a seed, the first model's config with the untrained weights of that seed is measured too.
    """
    models: dict[str, Path | OVSegmentor] = {**model_dirs}
    if untrained_seed is not None:
        trained = OVSegmentor.from_pretrained(next(iter(model_dirs.values())))
        models = {"untrained": initial(trained.config, trained.tokenizer, untrained_seed), **models}
    result = evaluation.evaluate.evaluate(models, benchmark, root, out_dir, protocol)
    figure = {row["name"]: row["miou"] for row in result["results"]}
    for name, folder in model_dirs.items():
        if figure[name] is not None:  # no pixel counted
            add_metrics(folder / CARD, {f"mIoU, {result['benchmark']['title']}": figure[name]})
    return result
