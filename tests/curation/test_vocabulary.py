from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.senses import Sense
from curation.vocabulary import Mention, Vocabulary, plurals

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


def sense(entry: str) -> str:
    return f'[entities]\ncat = ["cat"]\n[[senses]]\nwhy = "..."\n{entry}\n'


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
        ('plurals = 3\n[entities]\ncat = ["cat"]', r"expected a table \[plurals\], found 3"),
        ('always_nouns = ["dog"]\n[entities]\ncat = ["cat"]', "always_nouns: 'dog' is no form; add it to an entity"),
        ('senses = 1\n[entities]\ncat = ["cat"]', r"expected tables \[\[senses\]\], found 1"),
        (sense('forms = ["dog"]\nother = ["hot _"]'), "senses, entry 1: 'dog' is no form; add it to an entity"),
        (sense('forms = ["cat"]'), "senses, entry 1: names and other are empty: expected phrases in one of them"),
        (sense('forms = []\nother = ["hot _"]'), r"senses, entry 1: forms = \[\]: expected one form or more"),
        (sense('forms = "cat"\nother = ["big _"]'), "senses, entry 1: forms: expected a list of strings, found 'cat'"),
        (
            sense('forms = ["cat"]\nothers = ["big _"]'),
            "senses, entry 1: unknown key others; known are forms, why, names",
        ),
        (sense('forms = ["cat"]\nother = ["_ x"]\nnumber = "two"'), "number = 'two': expected one of singular, plural"),
        (
            sense('forms = ["cat"]\nother = ["_ x"]\notherwise = "yes"'),
            "otherwise = 'yes': expected one of noun, other",
        ),
        (
            sense('forms = ["cat"]\nother = ["big"]'),
            r"entry 1 \(cat\): phrase 'big': expected one _ for the form, found 0",
        ),
        (sense('forms = ["cat"]\nother = ["_"]'), "phrase '_': expected words around the _, found none"),
        (sense('forms = ["cat"]\nother = ["_ {size}"]'), r"phrase '_ \{size\}': unknown list \{size\}; known are none"),
        (sense('forms = ["cat"]\nother = ["cat\'s _"]'), r"phrase 'cat's _': expected words, .* found 'cat's'"),
        (sense('forms = ["cat"]\nother = ["a | _"]'), r"phrase 'a \| _': expected \| at an end only"),
    ],
)
def test_a_faulty_file_is_refused_with_its_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        Vocabulary.load(path)
    assert str(path) in str(error.value)


def test_digest_follows_what_is_found_and_not_the_name() -> None:
    assert replace(CC4M, name="other name").digest == CC4M.digest
    for change in ({"plurals": {**CC4M.plurals, "cat": ("kitties",)}}, {"senses": ()}, {"always_nouns": ()}):
        assert replace(CC4M, **change).digest != CC4M.digest


def test_a_user_s_forms_take_the_plurals_of_the_inflect_library() -> None:
    wild = Vocabulary("wild", {"wolf": "wolf", "goose": "bird", "deer": "deer"})
    assert found("wolves, geese and deer", wild) == [("wolf", "wolves"), ("bird", "geese"), ("deer", "deer")]


def test_the_plurals_written_in_cc4m_are_those_of_the_inflect_library() -> None:
    own = {"people", "men", "women", "children", "skis"}  # plurals already
    for form, written in CC4M.plurals.items():
        expected = () if form in own else plurals(form)
        assert [word.lower() for word in written] == [word.lower() for word in expected], form
    assert set(CC4M.plurals) == set(CC4M.forms), "a form without its plurals would load the library"


SEA = Vocabulary(
    "sea",
    {"port": "harbour", "boat": "boat"},
    always_nouns=("boat",),
    lists={"dish": ("gravy", "sauce")},
    senses=(
        Sense(("port",), "a wine", names=("glass of _ authority",), other=("glass of _", "_ <noun>", "| _")),
        Sense(("boat",), "a dish, of which there may be many", number="singular", other=("{dish} _",)),
    ),
)


def verdicts(caption: str, *nouns: str) -> list[bool]:
    return [
        occurrence.names(lambda span: caption[span[0] : span[1]] in nouns) for occurrence in SEA.occurrences(caption)
    ]


@pytest.mark.parametrize(
    ("caption", "nouns", "expected"),
    [
        ("the old port", ["port"], [True]),
        ("they port it", [], [False]),
        ("a glass of port", ["port"], [False]),
        ("a Glass-of Port", ["port"], [False]),
        ("a glass of the port", ["port"], [True]),
        ("glass of port authority", [], [True]),
        ("the port wine", ["port", "wine"], [False]),
        ("the port burns", ["port"], [True]),
        ("Port of call", ["Port"], [False]),
        ("seen: port", ["port"], [False]),
        ("a boat, two gravy boats", [], [True, True]),
        ("a gravy boat", ["boat"], [False]),
        ("http://a/boat.jpg", [], [False]),
    ],
)
def test_phrases_tell_senses_and_the_longest_wins(caption: str, nouns: list[str], expected: list[bool]) -> None:
    assert verdicts(caption, *nouns) == expected


def test_person_is_a_form_on_request_only() -> None:
    assert found("<PERSON> and two persons", CC4M.with_person()) == [("people", "PERSON"), ("people", "persons")]
    assert CC4M.with_person().with_person() == CC4M.with_person()
    with pytest.raises(
        ValueError, match=r"'person' is no query word; add a line like person = \"people\" to \[queries\]"
    ):
        PETS.with_person()


def test_vocabularies_travel_to_workers() -> None:
    assert pickle.loads(pickle.dumps(CC4M)).find("a cat") == CC4M.find("a cat")


@pytest.mark.real_data
def test_cc4m_is_the_published_list(shared: Path) -> None:
    lines = (shared / "reference" / "vocabulary.tsv").read_text().splitlines()
    published = dict(line.split("\t") for line in lines if not line.startswith("#") and line != "form\tentity")
    assert dict(CC4M.forms) == published
    assert (len(CC4M.forms), len(CC4M.entities)) == (100, 73)
    assert CC4M.entities == list(dict.fromkeys(published.values()))
