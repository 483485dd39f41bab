"""The rules of ARCHITECTURE.md that a reader relies on: who may import whom, and where each library lives."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("curation", "model", "training", "evaluation", "flows")

MAY_IMPORT = {
    "curation": ("curation",),
    "model": ("model",),
    "evaluation": ("evaluation", "model"),
    "training": ("training", "model", "evaluation", "curation.schema", "curation.images"),
    "flows": ROOMS,
}
HOMES = {
    "prefect": ("flows/",),
    "pydantic": ("flows/",),
    "ray": ("flows/", "training/launch.py"),
    "img2dataset": ("curation/shard.py",),
    "spacy": ("curation/tagger.py",),
    "faiss": ("curation/neighbours.py",),
    "gradio": ("evaluation/app.py",),
    "torch": ("model/", "training/", "evaluation/", "flows/"),
    "timm": ("model/", "training/transforms.py"),
    "transformers": ("model/",),
    "tokenizers": ("model/",),
    "mmcv": (),
    "mmseg": (),
    "apex": (),
}


def _sources() -> list[str]:
    return [str(path.relative_to(ROOT)) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def _imports(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _below(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", _sources())
def test_a_room_imports_only_the_rooms_below_it(path: str) -> None:
    allowed = MAY_IMPORT[path.split("/")[0]]
    # `from curation import schema` yields both "curation" and "curation.schema": the longer name decides.
    ours = [name for name in _imports(path) if _below(name, ROOMS)]
    wrong = [
        name for name in ours if not _below(name, allowed) and not any(_below(other, (name,)) for other in allowed)
    ]
    assert not wrong, f"{path} imports {wrong}; {path.split('/')[0]}/ may import {', '.join(allowed)}"


@pytest.mark.parametrize("path", _sources())
def test_a_library_is_imported_only_in_its_home(path: str) -> None:
    wrong = [
        name
        for name in _imports(path)
        if (library := name.split(".")[0]) in HOMES and not path.startswith(HOMES[library] or "nowhere")
    ]
    assert not wrong, (
        f"{path} imports {wrong}; homes: { {name.split('.')[0]: HOMES[name.split('.')[0]] for name in wrong} }"
    )


@pytest.mark.parametrize("module", ["training.loop", "training.data", "evaluation.evaluate", "model"])
def test_training_and_evaluation_run_without_the_orchestration_stack(module: str) -> None:
    absent = ("prefect", "ray", "spacy", "pydantic", "faiss", "img2dataset", "gradio", "pycocotools")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _sources_of(test: Path) -> list[Path]:
    """Return the sources whose name a test module bears, alone or followed by the aspect that it tests."""
    words = test.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:count]) + ".py" for count in range(1, len(words) + 1)]
    return [path for name in names if (path := ROOT / test.parent / name).exists()]


def test_every_test_module_mirrors_a_source() -> None:
    tests = [path.relative_to(ROOT / "tests") for room in ROOMS for path in (ROOT / "tests" / room).rglob("test_*.py")]
    orphans = [str(path) for path in tests if not _sources_of(path)]
    assert not orphans, f"tests without a source of that name: {orphans}"


def test_the_readme_names_every_room_and_module() -> None:
    tree = (ROOT / "README.md").read_text()
    missing = [
        path
        for path in _sources()
        if not path.endswith("__init__.py") and not re.search(rf"\b{Path(path).name}\b", tree)
    ]
    assert not missing, f"README.md's tree lacks {missing}"


def test_the_lock_names_no_registry_and_is_complete() -> None:
    lock = (ROOT / "infra" / "requirements.lock").read_text()
    assert "://" not in lock
    assert not re.search(r"^dataclasses==", lock, re.MULTILINE), "the backport shadows the standard library"
    for package in (
        "prefect",
        "ray",
        "spacy",
        "nltk",
        "pyarrow",
        "img2dataset",
        "torch",
        "timm",
        "transformers",
        "faiss-cpu",
        "gradio",
    ):
        assert re.search(rf"^{package}(\[.*\])?==", lock, re.MULTILINE), package
