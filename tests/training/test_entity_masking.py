from hypothesis import given
from hypothesis import strategies as st

from curation.vocabulary import Mention
from training.config import PromptConfig
from training.entity_masking import NounPrompts, answer, entities_of, question
from training.templates import TEMPLATES


def test_all_mentions_are_masked_and_all_else_stays() -> None:
    caption = "Two dogs, a couch's leg and a bus in the street"
    mentions = [Mention("dog", 4, 8), Mention("sofa", 12, 17), Mention("bus", 30, 33)]
    assert question(caption, mentions, "[MASK]") == "Two [MASK], a [MASK]'s leg and a [MASK] in the street"


def test_a_caption_without_mentions_is_its_own_question() -> None:
    assert question("a light blue sky", [], "[MASK]") == "a light blue sky"


def test_a_mention_within_a_longer_one_is_masked_once() -> None:
    mentions = [Mention("dog", 4, 7), Mention("hot dog", 0, 7)]
    assert question("hot dog stand", mentions, "[MASK]") == "[MASK] stand"


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


def test_there_are_eighty_templates_with_one_gap_each() -> None:
    assert len(set(TEMPLATES)) == 80
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_noun_prompts_are_entities_then_extra_nouns() -> None:
    nouns = NounPrompts(["dog", "cat"], PromptConfig(extra_nouns=("tall grass", "grass", "cat")))
    assert nouns.prompts == ["a photo of a cat", "a photo of a dog", "the tall grass", "the grass"]


def test_extra_nouns_are_whole_words_in_any_case_longest_first() -> None:
    nouns = NounPrompts(["cat"], PromptConfig(extra_nouns=("grass", "tall grass", "sand")))
    assert nouns.numbers("A cat in Tall Grass, a sandwich", ["cat"]) == (0, 2)
    assert nouns.numbers("grass and sand", []) == (1, 3)
