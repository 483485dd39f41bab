"""Every command of docs/guide.md is run, in order; blocks that say "checked, not run" have their arguments checked."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from flows.cli import main, parser
from flows.cluster import free_port
from flows.recipes import get_recipe
from flows.settings import with_settings

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "guide.md").read_text()
NOT_RUN = "checked, not run: "
OWN_PROCESS = ("run", "train")
"""commands that start services, which end with their process"""


@dataclass(frozen=True)
class Block:
    """Commands that stand together."""

    commands: tuple[str, ...]
    """a line each"""
    is_run: bool
    """else its heading says why not"""


def blocks() -> list[Block]:
    """Return the indented blocks of the guide, in order."""
    found = re.finditer(r"(?P<before>[^\n]*\n?[^\n]*)\n\n(?P<block>(?:    \S[^\n]*\n(?:        [^\n]*\n)*)+)", GUIDE)
    return [
        Block(
            tuple(match["block"].replace("\\\n", " ").strip().splitlines()),
            is_run=NOT_RUN not in match["before"].replace("\n", " "),
        )
        for match in found
    ]


def arguments_of(command: str) -> list[str]:
    program, *arguments = shlex.split(command)
    assert program == "ovseg", command
    return arguments


COMMANDS = [(command.strip(), block.is_run) for block in blocks() for command in block.commands]


def test_no_command_of_the_guide_is_overlooked() -> None:
    assert len(COMMANDS) == len(re.findall(r"^    \S", GUIDE, re.MULTILINE)) > 30
    assert GUIDE.replace("\n", " ").count(NOT_RUN) == sum(not block.is_run for block in blocks())


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS if command.startswith("ovseg ")])
def test_the_arguments_of_the_guide_are_known(command: str) -> None:
    arguments = arguments_of(command)
    options = parser().parse_args(arguments)
    assert options.command.__name__ == arguments[0]
    if "recipe" in options:
        with_settings(get_recipe(options.recipe, options.seed), options.settings)  # raises at a name it does not know


def test_what_is_not_run_besides_is_there() -> None:
    others = [command for command, is_run in COMMANDS if not is_run and not command.startswith("ovseg ")]
    makefile = (ROOT / "Makefile").read_text()
    for command in others:
        program, *rest = shlex.split(command, comments=True)
        assert program in ("make", "source", "export"), command
        assert program != "make" or re.search(rf"^{rest[0]}:", makefile, re.MULTILINE), command


def test_links_lead_to_headings_and_pages() -> None:
    for text, page, heading in re.findall(r"\[([^\]]+)\]\(([\w./]*)#?([\w-]*)\)", GUIDE):
        path = (ROOT / "docs" / page) if page else ROOT / "docs" / "guide.md"
        assert path.exists(), text
        titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        anchors = [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles]
        assert not heading or heading in anchors, text
    headings = re.findall(r"^## (.*)$", GUIDE, re.MULTILINE)
    assert len(headings) == GUIDE.split("\n## ")[0].count("](#")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_of_the_guide_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    bring_files()
    for command, is_run in COMMANDS:
        if not is_run:
            continue
        arguments = arguments_of(command)
        if arguments[0] in OWN_PROCESS:
            subprocess.run([sys.executable, "-m", "flows.cli", *arguments], check=True)
            stand_in_for_the_demo()
        elif arguments[0] == "app":
            assert "Masks for your words" in served(arguments)
        else:
            assert main(arguments) == 0, command
    printed = capsys.readouterr().out
    assert "weights loaded" in printed
    assert "all whole" in printed
    for folder in ("masks", "masks-mine", "masks-strict", "masks-groupvit"):
        assert list(Path(folder).glob("*-overlay.png")), folder
    assert Path("comparison.html").exists()
    assert Path("runs/debug/report/index.html").exists()
    assert len(list(Path("cleaned/captions").glob("part-*.parquet"))) == 1
    assert not list(Path("cc12m").glob("*"))


def bring_files() -> None:
    """Make what the guide takes for granted: tables, photographs, a list of what to remove, a GroupViT."""
    from model import learn_wordpiece  # here, since the other tests of this page need no model
    from tests.model.test_groupvit import SMALL_TEXT, SMALL_VISION, random_model

    draw = np.random.default_rng(0)
    Path("photos").mkdir()
    rows = ["image\tcaption"]
    for number in range(24):
        pixels = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 72)).save(f"photos/{number}.jpg")
        rows.append(f"{number}.jpg\ta {('cat', 'dog')[number % 2]} on the sofa, day {number}")
    Path("photos.tsv").write_text("\n".join(rows) + "\n")
    Path("photo.jpg").write_bytes(Path("photos/0.jpg").read_bytes())
    captions = [
        f"https://pets.example/{number}.jpg\ta {('cat', 'dog')[number % 2]} beside a chair, number {number}"
        for number in range(12)
    ]
    Path("captions.tsv").write_text("\n".join(["url\tcaption", *captions]) + "\n")
    Path("removed.txt").write_text("https://pets.example/3.jpg\n")
    random_model(SMALL_VISION, {**SMALL_TEXT, "eos_token_id": 3}).save_pretrained("groupvit")
    learn_wordpiece(["a cat and a dog, the grass and the sky"], 60).save_pretrained("groupvit")


def stand_in_for_the_demo() -> None:
    """Let the debug run be what `make demo` leaves."""
    if Path("runs/debug").exists() and not Path("runs/demo").exists():
        shutil.copytree("runs/debug", "runs/demo")


def served(arguments: list[str]) -> str:
    """Start a page, and return what it shows before it is ended."""
    log = Path("app.log")
    command = [sys.executable, "-u", "-m", "flows.cli", *arguments, f"--port={free_port(0)}"]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            while not (found := re.search(r"http://\S+", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            with urlopen(found[0], timeout=60) as answer:
                return str(answer.read().decode())
        finally:
            process.terminate()
