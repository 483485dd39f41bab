"""Places that flows and commands take: folders, or addresses of an object store, and what each stage needs of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, cast

from pydantic import PlainValidator, WithJsonSchema

from curation.folder import is_address
from flows.storage import Needs, working_copy

P = ParamSpec("P")
R = TypeVar("R")


def as_place(place: Path | str) -> Path:
    """Return what a flow or command is given as a `Place`."""
    return cast(Path, str(place)) if is_address(place) else Path(place)


Place = Annotated[Path, PlainValidator(as_place), WithJsonSchema({"type": "string"})]
"""A folder that a flow is given: a path, or an address like s3://bucket/run. `on_copies` makes a path of it."""

DATACARDS = tuple(
    f"{folder}/{name}"
    for folder in ("captions", "entities", "postings", "images", "pairs")
    for name in ("manifest.json", "datacard.json", "sheet.jpg")
)
"""what is told of a data folder: its big files are not fetched for it"""

ALL = ("",)
_INGEST = Needs(writes=("tables", "captions"))
_MODEL = Needs(reads=ALL)
_REPORT = Needs(
    reads=(
        *("config.json", "evaluation", *(f"data/{name}" for name in DATACARDS)),
        *(f"phase{number}/{name}" for number in (1, 2) for name in ("run.json", "metrics.jsonl")),
    ),
    writes=("report",),
)
NEEDS = {
    "scenes": {"out_dir": Needs(writes=ALL)},
    "ingest": {"data_dir": _INGEST, "out": _INGEST},
    "vocabulary": {"data_dir": Needs(reads=("captions",))},
    "parse": {"data_dir": Needs(reads=("captions",), writes=("entities", "postings"))},
    "entities": {"data_dir": Needs(reads=("entities", "postings"))},
    "subset": {"data_dir": Needs(reads=("captions/manifest.json", "entities"))},
    "download": {"data_dir": Needs(reads=("captions", "entities"), writes=("images",))},
    "embed": {"data_dir": Needs(reads=("images",), writes=("embeddings",)), "model_dir": _MODEL, "model": _MODEL},
    "pairs": {"data_dir": Needs(reads=("postings", "images", "embeddings"), writes=("pairs",))},
    "card": {"data_dir": Needs(reads=DATACARDS, writes=("datacard.json", "datacard.md"))},
    "train": {
        "data_dir": Needs(reads=("images", "pairs")),
        "init_from": _MODEL,
        "run_dir": Needs(writes=ALL),
        "out": Needs(writes=("phase1", "phase2")),
    },
    "evaluate": {
        "model_dirs": Needs(writes=ALL),  # a model's card tells its figures
        "root": Needs(reads=ALL),
        "out_dir": Needs(writes=ALL),
        "out": Needs(writes=ALL),
    },
    "segment": {"model": _MODEL},
    "app": {"model": _MODEL},
    "report": {"run_dir": _REPORT, "runs": _REPORT},
}
"""stage or command -> parameter that names a place -> what is needed of it"""


@contextmanager
def working_copies(stage: str, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the values of a stage's parameters, local folders in place of addresses, also within lists and dicts."""
    with ExitStack() as copies:

        def local(value: Any, needs: Needs) -> Any:
            match value:
                case dict():
                    return {name: local(place, needs) for name, place in value.items()}
                case list():
                    return [local(place, needs) for place in value]
                case Path() | str():
                    return copies.enter_context(working_copy(value, stage, needs))
                case _:
                    return value

        needs = NEEDS.get(stage, {})
        yield {name: local(value, needs[name]) if name in needs else value for name, value in values.items()}


def on_copies(do: Callable[P, R]) -> Callable[P, R]:
    """Return a stage's function that takes addresses, too, for the places that `NEEDS` knows of it."""
    signature = inspect.signature(do, eval_str=True)
    do_with: Callable[..., R] = do

    @functools.wraps(do)
    def do_on_copies(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        with working_copies(do.__name__, given.arguments) as values:
            return do_with(**values)

    # Prefect reads types here; as text they would be looked up in this module.
    cast(Any, do_on_copies).__signature__ = signature
    return do_on_copies


def below(place: Path, name: str) -> Path:
    """Return the place of a name below a `Place`."""
    return as_place(f"{str(place).rstrip('/')}/{name}")
