"""The help of each command, and what it shows to type."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from flows.cli import parser
from flows.recipes import get_recipe
from flows.settings import with_settings

PROGRAM = parser()


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    (action,) = (action for action in PROGRAM._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def examples(text: str) -> list[str]:
    """Return the commands below the line `Examples:` of a help."""
    return re.findall(r"^    (\S.*)$", text.partition("\nExamples:\n")[2], re.MULTILINE)


@pytest.mark.parametrize("name", commands())
def test_a_commands_help_shows_examples_of_it(name: str) -> None:
    shown = examples(commands()[name].format_help())
    assert shown
    for example in shown:
        program, command, *_ = shlex.split(example)
        assert (program, command) == ("ovseg", name)


@pytest.mark.parametrize("example", [line for each in commands().values() for line in examples(each.format_help())])
def test_an_example_is_understood(example: str) -> None:
    arguments = shlex.split(example)[1:]
    options = PROGRAM.parse_args(arguments)
    assert options.command.__name__ == arguments[0]
    if "recipe" in options:
        recipe = get_recipe(options.recipe, options.seed)
        assert (with_settings(recipe, options.settings) != recipe) == bool(options.settings)


def test_the_programs_help_shows_where_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    shown = examples(PROGRAM.format_help())
    assert shown[0] == "ovseg run demo"
    for example in shown:
        arguments = shlex.split(example)[1:]
        if arguments[-1] == "--help":
            with pytest.raises(SystemExit) as ended:
                PROGRAM.parse_args(arguments)
            assert ended.value.code == 0
            assert "Examples:" in capsys.readouterr().out
        else:
            PROGRAM.parse_args(arguments)
