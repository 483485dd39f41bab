from __future__ import annotations

import re
from pathlib import Path

import pytest

from curation.tagger import Tagger, installed_model, is_noun

TAGGER = Tagger()


def test_nouns_come_with_their_spans_whatever_the_case() -> None:
    # The last one's first letter grows when it is lowered.
    captions = ["A CAT ON THE COUCH", "", "running fast", "İstanbul has a cat"]
    spans = TAGGER.nouns(captions)
    words = [[caption[s:e] for s, e in nouns] for caption, nouns in zip(captions, spans, strict=True)]
    assert words[:3] == [["CAT", "COUCH"], [], []]
    assert words[3][-1] == "cat"


def test_the_last_word_of_a_span_decides_and_parts_of_tokens_are_no_nouns() -> None:
    assert is_noun([(2, 7)], (0, 7))
    assert not is_noun([(0, 7)], (2, 7))
    assert not is_noun([(0, 7)], (0, 5))


@pytest.mark.real_data
def test_a_window_gives_the_tag_of_the_whole_caption(shared: Path) -> None:
    lines = (shared / "real" / "cc3m_val.tsv").read_text().splitlines()[:600]
    captions = ["  ".join(line.split("\t")[0] for line in lines[at : at + 3]) for at in range(0, len(lines), 3)]
    places = [(c, word.span()) for c in captions for word in list(re.finditer(r"\w+", c))[::3]]
    whole = dict(zip(captions, TAGGER.nouns(captions), strict=True))
    near = TAGGER.nouns_near(places)
    assert all(
        is_noun(nouns, span) == is_noun(whole[caption], span)
        for (caption, span), nouns in zip(places, near, strict=True)
    )


def test_a_window_is_small_and_keeps_what_stands_at_the_edges() -> None:
    caption = "  one two three four five SIX seven eight nine ten eleven"
    assert TAGGER._window(caption, (caption.index("SIX"), caption.index("SIX") + 3)) == (
        caption.index("two"),
        caption.index("eleven"),
    )
    assert TAGGER._window(caption, (2, 5))[0] == 0


def test_a_model_that_is_not_installed_names_the_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"spacy_models = no_such_model: none is installed; run `pip install en-core-web"
    ):
        installed_model(["no_such_model"])
