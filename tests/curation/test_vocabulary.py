from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.vocabulary import Mention, Vocabulary

CC4M = Vocabulary.load("cc4m")
PETS = Vocabulary(
    "pets", {"cat": "cat", "hot dog": "snack", "dog": "dog", "hot dog stand": "stand", "traffic light": "light"}
)


def found(caption: str, vocabulary: Vocabulary = CC4M) -> list[tuple[str, str]]:
    return [(mention.entity, caption[mention.start : mention.end]) for mention in vocabulary.find(caption)]


def test_offsets_cut_the_word_out_of_the_caption() -> None:
    assert PETS.find("two Cats, é 🐈 a dog") == [Mention("cat", 4, 8), Mention("dog", 16, 19)]
    assert "two Cats, é 🐈 a dog"[16:19] == "dog"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A WOMAN and two Babies", [("people", "WOMAN"), ("people", "Babies")]),
        (
            "knives, boxes; benches/mice",
            [("knife", "knives"), ("box", "boxes"), ("bench", "benches"), ("mouse", "mice")],
        ),
        ("the dog's buses", [("dog", "dog"), ("bus", "buses")]),
        ("T-shirt, t shirts and t - shirt", [("shirt", "T-shirt"), ("shirt", "t shirts"), ("shirt", "t - shirt")]),
        ("t, shirt", [("shirt", "shirt")]),
        ("a category of dogmatic carpets, mens peoples", []),
        ("a TV, a Tv and tvs", [("tv", "TV"), ("tv", "Tv"), ("tv", "tvs")]),
        ("<PERSON> and a person on a ski", []),
        ("", []),
    ],
)
def test_forms_are_found_in_any_case_and_number_as_whole_words(caption: str, expected: list[tuple[str, str]]) -> None:
    assert found(caption) == expected


def test_the_longest_form_wins_and_words_may_be_joined_by_hyphens() -> None:
    assert found("hot dog", PETS) == [("snack", "hot dog")]
    assert found("Hot-dogs at a hot dog stand", PETS) == [("snack", "Hot-dogs"), ("stand", "hot dog stand")]
    assert found("cold hot", PETS) == []
    assert found("hot, dog and traffic  lights", PETS) == [("dog", "dog"), ("light", "traffic  lights")]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["cat", "Dogs", "t-shirt", "couch", "x", "İ", "é", "-", "'s", ",", " ", "\n", "🐈"])))
def test_mentions_slice_to_their_surface_and_do_not_overlap(pieces: list[str]) -> None:
    caption = "".join(pieces)
    entities = {"cat": "cat", "dogs": "dog", "t-shirt": "shirt", "shirt": "shirt", "couch": "sofa"}
    end = 0
    for mention in CC4M.find(caption):
        assert mention.start >= end
        end = mention.end
        assert entities[caption[mention.start : mention.end].lower()] == mention.entity


@settings(deadline=None)
@given(st.lists(st.sampled_from(["cat", "dogs", "shirts", "table", "sky", "a"]), max_size=8))
def test_every_word_that_is_a_form_is_found(words: list[str]) -> None:
    entities = {"cat": "cat", "dogs": "dog", "shirts": "shirt", "table": "table"}
    assert [mention.entity for mention in CC4M.find(" ".join(words))] == [entities[w] for w in words if w in entities]


def test_words_resolve_to_entities_whatever_their_form() -> None:
    assert [CC4M.entity(word) for word in ("sofa", "Couches", "person", "tee shirt"[4:], "T-Shirt", "WOMEN")] == [
        "sofa",
        "sofa",
        "people",
        "shirt",
        "shirt",
        "people",
    ]


def test_an_unknown_word_lists_near_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown word 'girafe'; near it: giraffe"):
        CC4M.entity("girafe")
    with pytest.raises(ValueError, match=r"unknown word 'zzz'; entities are cat, snack, dog, stand, light"):
        PETS.entity("zzz")


def test_an_unknown_vocabulary_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"vocabulary 'cc5m': not found; known are cc4m, or give the path of a TOML"):
        Vocabulary.load("cc5m")


def test_users_bring_their_own(tmp_path: Path) -> None:
    path = tmp_path / "farm.toml"
    path.write_text('[entities]\ncattle = ["cow", "ox"]\n[plurals]\nox = ["oxen"]\n[queries]\nlivestock = "cattle"\n')
    vocabulary = Vocabulary.load(path)
    assert vocabulary.name == "farm"
    assert found("Oxen and cows", vocabulary) == [("cattle", "Oxen"), ("cattle", "cows")]
    assert vocabulary.entity("livestock") == vocabulary.entity("cattle") == "cattle"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"mine\.toml: expected a table \[entities\]"),
        ("entities = 3", r"expected a table \[entities\]"),
        ("x = ", r"mine\.toml: Invalid value"),
        (
            '[entities]\ncat = ["cat"]\n[forms]\n',
            "unknown key forms; known are name, source, entities, plurals, queries",
        ),
        ("[entities]\ncat = []", r'entities\.cat: expected a list of words like \["cat", "kitten"\], found \[\]'),
        ('[entities]\ncat = ["!"]', "form '!' of 'cat' holds no word"),
        ('[entities]\ncat = ["pet"]\ndog = ["pet"]', "form 'pet' stands for 'cat' and for 'dog'; keep it in one"),
        ('[entities]\ncat = ["pets"]\ndog = ["pet"]', "'pets' stands for 'cat' and for 'dog'; keep it in one"),
        ('[entities]\ncat = ["cat"]\n[plurals]\nox = ["oxen"]', "plurals of 'ox', which is no form"),
        ('[entities]\ncat = ["cat"]\n[queries]\npet = "dog"', "query word 'pet' means 'dog', which is no entity"),
    ],
)
def test_a_faulty_file_is_refused_with_its_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        Vocabulary.load(path)
    assert str(path) in str(error.value)


def test_digest_follows_what_is_found_and_not_the_name() -> None:
    same = Vocabulary("other name", CC4M.forms, CC4M.plurals, CC4M.queries)
    assert same.digest == CC4M.digest
    assert Vocabulary("cc4m", CC4M.forms, {}, CC4M.queries).digest != CC4M.digest


def test_vocabularies_travel_to_workers() -> None:
    assert pickle.loads(pickle.dumps(CC4M)).find("a cat") == CC4M.find("a cat")


@pytest.mark.real_data
def test_cc4m_is_the_published_list(shared: Path) -> None:
    lines = (shared / "reference" / "vocabulary.tsv").read_text().splitlines()
    published = dict(line.split("\t") for line in lines if not line.startswith("#") and line != "form\tentity")
    assert dict(CC4M.forms) == published
    assert (len(CC4M.forms), len(CC4M.entities)) == (100, 73)
    assert CC4M.entities == list(dict.fromkeys(published.values()))
