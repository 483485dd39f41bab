import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.images import Caption
from curation.vocabulary import Mention
from training.config import PromptConfig
from training.entity_masking import NounPrompts, answer, entities_of, masked_mentions, question


def test_all_mentions_are_masked_and_all_else_stays() -> None:
    caption = "Two dogs, a couch's leg and a bus in the street"
    mentions = [Mention("dog", 4, 8), Mention("sofa", 12, 17), Mention("bus", 30, 33)]
    assert question(caption, mentions, "[MASK]") == "Two [MASK], a [MASK]'s leg and a [MASK] in the street"


def test_a_caption_without_mentions_is_its_own_question() -> None:
    assert question("a light blue sky", [], "[MASK]") == "a light blue sky"


def test_a_mention_within_a_longer_one_is_masked_once() -> None:
    mentions = [Mention("dog", 4, 7), Mention("hot dog", 0, 7)]
    assert question("hot dog stand", mentions, "[MASK]") == "[MASK] stand"


CAPTION = "The cat is sleeping under the tree on a sunny day."
MENTIONS = [Mention("cat", 4, 7), Mention("tree", 30, 34)]
NOUNS = [(4, 7), (30, 34), (46, 49)]


def asked(masked: str, seed: int = 0, nouns: list[tuple[int, int]] | None = NOUNS) -> tuple[str, str]:
    """Return question and answer."""
    left_out = masked_mentions(Caption(CAPTION, MENTIONS, nouns), masked, np.random.default_rng(seed))
    return question(CAPTION, left_out, "_"), answer(entities_of(left_out), "a photo of a {}.")


def test_what_is_masked_follows_the_papers_example() -> None:
    """Its rows of the ablation: cat and tree; one of them; cat, tree and day."""
    assert asked("entities") == ("The _ is sleeping under the _ on a sunny day.", "a photo of a cat and tree")
    assert {asked("entity", seed) for seed in range(9)} == {
        ("The _ is sleeping under the tree on a sunny day.", "a photo of a cat"),
        ("The cat is sleeping under the _ on a sunny day.", "a photo of a tree"),
    }
    assert asked("nouns") == ("The _ is sleeping under the _ on a sunny _.", "a photo of a cat and tree and day")


def test_a_caption_without_entities_or_nouns_leaves_nothing_out() -> None:
    for masked in ("entities", "entity", "nouns"):
        assert masked_mentions(Caption("so blue", []), masked, np.random.default_rng(0)) == []


def test_all_mentions_of_the_one_entity_are_masked() -> None:
    mentions = [Mention("cat", 0, 3), Mention("cat", 8, 11)]
    assert masked_mentions(Caption("cat and cat", mentions), "entity", np.random.default_rng(0)) == mentions


@given(st.lists(st.text(alphabet="ab é漢😀", max_size=4), max_size=9), st.data())
def test_question_equals_a_plain_join(pieces: list[str], data: st.DataObject) -> None:
    masked = [data.draw(st.booleans()) and bool(piece) for piece in pieces]
    caption, mentions = "", []
    for piece, is_masked in zip(pieces, masked, strict=True):
        if is_masked:
            mentions.append(Mention("x", len(caption), len(caption) + len(piece)))
        caption += piece
    plain = "".join("[MASK]" if is_masked else piece for piece, is_masked in zip(pieces, masked, strict=True))
    assert question(caption, mentions[::-1], "[MASK]") == plain


def test_entities_are_distinct_and_in_the_order_of_the_caption() -> None:
    assert entities_of([Mention("dog", 9, 12), Mention("cat", 2, 5), Mention("cat", 20, 24)]) == ("cat", "dog")


def test_answer_is_the_template_up_to_its_gap_and_the_entities() -> None:
    assert answer(("cat", "dog"), "the {} in a video game.") == "the cat and dog"
    assert answer((), "a photo of a {}.") == "a photo of a"


def test_noun_prompts_are_entities_then_extra_nouns() -> None:
    nouns = NounPrompts(["dog", "cat"], PromptConfig(extra_nouns=("tall grass", "grass", "cat")))
    assert nouns.prompts == ["a photo of a cat", "a photo of a dog", "the tall grass", "the grass"]


def test_extra_nouns_are_whole_words_in_any_case_longest_first() -> None:
    nouns = NounPrompts(["cat"], PromptConfig(extra_nouns=("grass", "tall grass", "sand")))
    assert nouns.numbers("A cat in Tall Grass, a sandwich", ["cat"]) == (0, 2)
    assert nouns.numbers("grass and sand", []) == (1, 3)
