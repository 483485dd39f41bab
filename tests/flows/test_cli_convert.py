"""`ovseg convert`: weights of others, as files with their true names, to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertConfig

from flows.cli import main
from model import OVSegmentor, PaperSegmentor, learn_wordpiece, load_groupvit
from tests.model.test_groupvit import SMALL_TEXT, SMALL_VISION, random_model
from tests.model.test_paper import FIXTURE, load


def test_the_authors_checkpoint_becomes_a_folder_that_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what: dict[str, Any] = json.loads((FIXTURE / "config.json").read_text())["what"]
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"model": what["model"], "data": {}}))
    BertConfig(**what["bert_config"]).save_pretrained(tmp_path / "text")
    learn_wordpiece(["a cat on a sofa"], 60).save_pretrained(tmp_path / "tokenizer")
    options = ["--config", "config.yml", "--text-config", "text", "--tokenizer", "tokenizer"]
    options = [str(tmp_path / option) if index % 2 else option for index, option in enumerate(options)]
    assert main(["convert", str(FIXTURE / "state_dict.pt"), str(tmp_path / "model"), *options]) == 0
    assert "weights loaded, " in capsys.readouterr().out
    model, image = OVSegmentor.from_pretrained(tmp_path / "model"), torch.randn(1, 3, 224, 224)
    assert isinstance(model, PaperSegmentor)
    torch.testing.assert_close(model.encode_image(image).embedding_BE, load().encode_image(image).embedding_BE)
    assert model.tokenize(["a cat"]).input_ids_BL.shape == (1, 4)
    assert "Converted from" in (tmp_path / "model" / "README.md").read_text()


def test_a_groupvit_of_transformers_becomes_a_folder(tmp_path: Path) -> None:
    tokenizer = learn_wordpiece(["a cat on a sofa"], 60)
    theirs = random_model(SMALL_VISION, {**SMALL_TEXT, "eos_token_id": 3})
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "model")]) == 0
    model, image = OVSegmentor.from_pretrained(tmp_path / "model"), torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(
        model.encode_image(image).embedding_BE, load_groupvit(theirs).encode_image(image).embedding_BE
    )


def test_a_file_that_is_no_checkpoint_is_one_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert main(["convert", str(tmp_path / "text.pth"), str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err
    assert "expected a checkpoint written by torch.save" in error
    assert not (tmp_path / "model").exists()
