"""`ovseg app` in a real browser: an image dropped, words typed, masks seen, the threshold moved, masks downloaded."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from evaluation.app import TITLE
from flows.app import draw_examples
from flows.cli import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
WORDS = "red cat, blue"
SLOW_MS = 60_000
DROP = """([name, bytes]) => {
    const dropped = new DataTransfer();
    dropped.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
    return dropped;
}"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a picture of two halves that the model puts into groups of their own."""
    noise = np.random.default_rng(0).integers(0, 60, (40, 56, 3))
    noise[:, 28:] += 190
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="module")
def address(saved_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the command on a free port, and yield the page's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "app", str(saved_model), "--port", str(port), "--device", "cpu"]
    log, temporary = tmp_path_factory.mktemp("app") / "log", tmp_path_factory.mktemp("temporary")
    environment = os.environ | {"TMPDIR": str(temporary)}
    with log.open("w") as file, subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment) as process:
        try:
            while not (found := re.search(r"http://\S+", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield found[0]
        finally:
            process.terminate()  # not SIGINT, which a shell lets its background jobs ignore
            process.wait(timeout=60)
            assert not list(temporary.glob("ovseg-examples-*"))


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Open the page, and check at the end that nothing was asked of another address."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(SLOW_MS)
    page.goto(address)
    page.get_by_role("heading", name=TITLE).wait_for()
    yield page
    page.close()
    assert asked
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def download(page: Page, ending: str) -> bytes:
    """Return the file of this ending, when the page has finished."""
    page.locator(".pending, .generating, .translucent").first.wait_for(state="detached")
    with page.expect_download() as begun:
        page.locator(f"a[download$='{ending}']").first.click()
    return Path(begun.value.path()).read_bytes()


@pytest.mark.browser
def test_a_dropped_image_is_segmented_as_by_ovseg_segment_at_any_threshold(
    page: Page, saved_model: Path, photo: Path, tmp_path: Path
) -> None:
    dropped = page.evaluate_handle(DROP, [photo.name, list(photo.read_bytes())])
    page.get_by_role("button", name="Drop an image file here to upload").dispatch_event(
        "drop", {"dataTransfer": dropped}
    )
    page.locator("img[src*='photo.png']").first.wait_for()
    page.get_by_placeholder("dog, grass").fill(WORDS)
    page.get_by_role("button", name="Segment", exact=True).click()
    page.locator("img[src*='photo-overlay.png']").wait_for()
    page.get_by_text("pixels, %").first.wait_for()

    def by_command(threshold: str, ending: str) -> bytes:
        out = tmp_path / f"out-{threshold}"
        command = ["segment", str(saved_model), str(photo), "--classes", WORDS, "--out", str(out), "--device", "cpu"]
        assert main([*command, "--set", f"threshold={threshold}"]) == 0
        return (out / f"photo{ending}").read_bytes()

    at_first = download(page, "-mask.png")
    assert at_first == by_command("0.95", "-mask.png")
    assert download(page, "-coco.json") == by_command("0.95", "-coco.json")

    seen = page.locator("img[src*='photo-overlay.png']").get_attribute("src")
    track = page.locator("input[type=range]").bounding_box()
    assert track
    page.mouse.click(track["x"] + 1, track["y"] + track["height"] / 2)
    page.wait_for_function("seen => !document.querySelector(`img[src='${seen}']`)", arg=seen)
    assert page.locator("input[type=range]").input_value() == "0"
    moved = download(page, "-mask.png")
    assert moved == by_command("0", "-mask.png")
    assert moved != at_first


@pytest.mark.browser
def test_what_cannot_be_answered_is_said_on_the_page(page: Page, photo: Path) -> None:
    page.get_by_role("button", name="Segment", exact=True).click()
    page.get_by_text("no image yet").wait_for()
    photo.write_bytes(photo.read_bytes()[:1000])
    page.locator("input[type=file]").first.set_input_files(photo)
    page.locator("img[src*='photo.png']").first.wait_for(state="attached")
    page.get_by_placeholder("dog, grass").fill(WORDS)
    page.get_by_role("button", name="Segment", exact=True).click()
    refusal = page.get_by_text("the image cannot be read")
    refusal.wait_for()
    assert refusal.is_visible()
    assert not page.locator("img[src*='photo-overlay.png']").count()


@pytest.mark.browser
def test_an_example_fills_the_page_and_background_words_take_the_place_of_the_threshold(page: Page) -> None:
    assert page.locator("input[type=range]").is_enabled()
    page.get_by_role("row", name=re.compile("grass, sand, sea")).first.click()
    page.locator("input[type=range]:disabled").wait_for()
    page.get_by_role("button", name="Segment", exact=True).click()
    page.locator("img[src*='-overlay.png']").wait_for()


@pytest.mark.browser
def test_on_a_phone_nothing_is_wider_than_the_page(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("row", name=re.compile("grass, sand, sea")).first.click()
    page.locator("input[type=range]:disabled").wait_for()
    page.get_by_role("button", name="Segment", exact=True).click()
    page.locator("img[src*='-overlay.png']").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_examples_are_the_same_every_time_and_name_what_they_show(tmp_path: Path) -> None:
    folders = (tmp_path / "a", tmp_path / "b")
    for folder in folders:
        folder.mkdir()
    first, second = map(draw_examples, folders)
    assert [example.words for example in first] == [example.words for example in second]
    assert [example.image.read_bytes() for example in first] == [example.image.read_bytes() for example in second]
    assert all("," in example.words for example in first)
