"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import flows  # sets the environment that the libraries read at import

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(flows.__file__).resolve().parents[1]
SHARED = Path(os.environ.get("OVSEG_SHARED", ROOT.parent / "shared"))
ABSENT = f"{SHARED}/real: not found; name the folder of real captions, photographs and masks in $OVSEG_SHARED"
CHROMIUM = os.environ.get("OVSEG_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NO_BROWSER = "no Chromium: none on the PATH, and $OVSEG_CHROMIUM names none"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a browser, or real data, where it is absent; in CI tests on real data fail instead."""
    has_real_data = (SHARED / "real").is_dir() or os.environ.get("CI")
    for item in items:
        if item.get_closest_marker("real_data") and not has_real_data:
            item.add_marker(pytest.mark.skip(reason=ABSENT))
        if item.get_closest_marker("browser") and CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason=NO_BROWSER))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    left_out = {reason: sum(reason in text for text in skipped) for reason in (ABSENT, NO_BROWSER)}
    if any(left_out.values()):
        terminalreporter.section("NOT ALL TESTS WERE RUN", red=True)
        for reason, count in left_out.items():
            if count:
                terminalreporter.line(f"{count} tests were left out. {reason}.", red=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real captions, photographs, masks and gold labels that lies beside the project."""
    if not (SHARED / "real").is_dir():
        pytest.fail(ABSENT)
    return SHARED


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a headless Chromium; tests that use it are marked `browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, which containers run as.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] * (os.geteuid() == 0))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny untrained model that knows a few words; it is read, never changed."""
    from model import ImageConfig, ModelConfig, TextConfig, initial, learn_wordpiece

    folder = tmp_path_factory.mktemp("saved") / "model"
    image = ImageConfig(
        image_size=32, patch_size=8, width=16, num_heads=2, depths=(1, 0), num_group_tokens=(4,), num_groups=(2,)
    )
    text = TextConfig(width=16, num_layers=1, num_heads=2, max_length=16)
    config = ModelConfig(image=image, text=text, embedding_width=12, projector="linear")
    captions = [f"a {colour} cat" for colour in ("red", "green", "blue", "white")]
    initial(config, learn_wordpiece(captions, 60), seed=0).save_pretrained(folder)
    return folder
