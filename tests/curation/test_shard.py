from __future__ import annotations

import ast
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from curation import shard

# What curation/shard.py relies on in img2dataset beyond its documented interface. When one of these fails after an
# upgrade, read the new downloader.py before changing the pin.


@pytest.fixture(scope="module")
def downloader() -> ast.ClassDef:
    spec = find_spec("img2dataset")
    assert spec
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "downloader.py").read_text()
    return next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Downloader")


def _method(of: ast.ClassDef, name: str) -> ast.FunctionDef:
    return next(node for node in of.body if isinstance(node, ast.FunctionDef) and node.name == name)


def test_img2dataset_is_the_version_that_was_read() -> None:
    assert version("img2dataset") == "1.47.0"


def test_the_downloader_takes_the_arguments_that_we_pass(downloader: ast.ClassDef) -> None:
    call = next(
        node
        for node in ast.walk(ast.parse(Path(shard.__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Downloader"
    )
    taken = [argument.arg for argument in _method(downloader, "__init__").args.args]
    assert {keyword.arg for keyword in call.keywords} == {*taken} - {"self", "blurring_bbox_col"}


def test_the_downloader_looks_its_fetch_up_by_name_for_every_image(downloader: ast.ClassDef) -> None:
    calls = [
        node
        for node in ast.walk(_method(downloader, "download_shard"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert [ast.unparse(call.args[0]) for call in calls if call.func.id == "download_image_with_retry"] == ["x"]  # type: ignore[attr-defined]


def test_hidden_modules_cannot_be_imported_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with shard._hidden("colorsys", "json"), pytest.raises(ModuleNotFoundError, match="colorsys"):
        import colorsys  # noqa: F401
    assert "colorsys" not in sys.modules
    assert sys.modules["json"]
    import colorsys as found

    assert found.hsv_to_rgb(0, 0, 1) == (1, 1, 1)
