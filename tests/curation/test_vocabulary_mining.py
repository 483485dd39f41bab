from __future__ import annotations

import re
from pathlib import Path

import pytest

from curation.captions import IngestConfig, ingest
from curation.vocabulary import Vocabulary
from curation.vocabulary_mining import propose_vocabulary

CAPTIONS = [
    "a view of the old bridge",
    "two bridges at night",
    "a view of the \x07 bridge\u2028at night",
    "view from the window",
    "the man wears blue jeans",
    "the woman wears jeans",
    "a café on the square",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = tmp_path / "table.tsv"
    table.write_text("url\tcaption\n" + "".join(f"http://a/{at}\t{text}\n" for at, text in enumerate(CAPTIONS)))
    ingest(table, tmp_path / "data", IngestConfig(part_rows=3))
    return tmp_path / "data"


def test_the_most_frequent_nouns_are_proposed_and_what_is_not_visible_is_marked(folder: Path, tmp_path: Path) -> None:
    text = propose_vocabulary(folder, top=2)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    vocabulary = Vocabulary.load(path)
    assert vocabulary.entities == ["bridge", "jeans"]
    assert [mention.entity for mention in vocabulary.find("bridges and jeans")] == ["bridge", "jeans"]
    assert "# 3 captions\n#   a view of the old bridge\n#   two bridges at night\nbridge = [" in text
    assert '# not proposed, the picture itself: # view = ["view"]' in text


def test_the_file_is_the_same_every_time_and_can_be_loaded_whatever_the_words(folder: Path, tmp_path: Path) -> None:
    text = propose_vocabulary(folder)
    assert text == propose_vocabulary(folder)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert set(Vocabulary.load(path).entities) >= {"man", "woman", "window", "café", "square"}
    path.write_text(re.sub(r"# not proposed, [^#]*# ", "", text))
    assert "view" in Vocabulary.load(path).entities, "what is marked can be taken"


def test_a_sample_is_spread_over_the_table(folder: Path) -> None:
    text = propose_vocabulary(folder, num_captions=3)
    assert "most frequent nouns of 3 captions" in text
    examples = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    assert set(examples) == {CAPTIONS[0], CAPTIONS[3], CAPTIONS[6]}


def test_senseless_numbers_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="top = 0: expected 1 or more"):
        propose_vocabulary(folder, top=0)
    with pytest.raises(ValueError, match="num_captions = 0: expected 1 or more"):
        propose_vocabulary(folder, num_captions=0)
