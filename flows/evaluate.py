"""Stage: trained models and a benchmark folder to evaluation/."""

from functools import partial
from typing import Any

from prefect import flow

import evaluation.evaluate
from evaluation.config import Protocol
from flows.artifacts import show_classes
from flows.limits import DAY_S
from flows.parts import gpus_of, map_by_ray
from flows.places import Place, on_copies
from flows.settings import described
from model import OVSegmentor, add_metrics, initial
from model.weights import CARD


@flow(name="evaluate", flow_run_name="{out_dir}", timeout_seconds=7 * DAY_S)
@described
@on_copies
def evaluate(
    model_dirs: dict[str, Place],
    benchmark: str,
    root: Place,
    out_dir: Place,
    protocol: Protocol = Protocol(),
    untrained_seed: int | None = None,
    device: str | None = None,
    with_backgrounds: bool = False,
    on_ray: bool = False,
) -> dict[str, Any]:
    """Measure models, and the baselines beside them, on a benchmark they have never seen, and tell their cards.

    With a seed, the first model's config with the untrained weights of that seed is measured too. `on_ray` makes each
    part of the images a Ray task; with a device like cuda, one that has a GPU for itself.
    """
    models = dict(model_dirs)
    if untrained_seed is not None:
        trained = OVSegmentor.from_pretrained(next(iter(model_dirs.values())))
        # Written down, so that a worker on another machine can read it like the others.
        initial(trained.config, trained.tokenizer, untrained_seed).save_pretrained(out_dir / "untrained")
        models = {"untrained": out_dir / "untrained", **models}
    result = evaluation.evaluate.evaluate(
        models,
        benchmark,
        root,
        out_dir,
        protocol,
        device=device,
        with_backgrounds=with_backgrounds,
        map_parts=partial(map_by_ray, num_gpus=gpus_of(device)) if on_ray else map,
    )
    figure = {row["name"]: row["miou"] for row in result["results"]}
    for name, folder in model_dirs.items():
        if figure[name] is not None:  # no pixel counted
            add_metrics(folder / CARD, {f"mIoU, {result['benchmark']['title']}": figure[name]})
    show_classes(result)
    return result
