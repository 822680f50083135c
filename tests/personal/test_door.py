"""What the door makes of texts. Catches: a policy that leaves a piece; surrogates that differ for one value, are shared
by two, are somebody's, or are taken for somebody's when they come again; spans that point beside what they meant; a
channel with the policy of another."""

import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.config_sources import FILE_NAME
from headrace.errors import BadConfig, BadInput
from headrace.personal import finding, surrogates
from headrace.personal.places import moved_spans, moved_target
from headrace.personal.policies import Cleaned, Door, Piece
from headrace.personal.recogniser import Recogniser
from headrace.workspace import Workspace, open_workspace

KEY = b"k" * 32
BY_KIND = {one.kind: one for one in reversed(finding.RECOGNISERS)}
FORMS = {  # what a value of the kind may look like; of numbers that have one, the check digit is left to chance
    "e-mail": st.from_regex(r"[a-z]{1,12}[.+]?[a-z]{1,9}@[a-z]{2,9}\.(com|org)", fullmatch=True),
    "phone": st.from_regex(r"\+[1-8][0-9]{9,12}", fullmatch=True),
    "card": st.from_regex(r"4[0-9]{3}( [0-9]{4}){3}", fullmatch=True),
    "iban": st.from_regex(r"DE[0-9]{2}( [0-9]{4}){4} [0-9]{2}", fullmatch=True),
    "ip": st.ip_addresses().map(str),
    "us-ssn": st.from_regex(r"[1-5][0-9]{2}-[0-9]{2}-[0-9]{4}", fullmatch=True),
    "uk-nino": st.from_regex(r"AB[0-9]{6}[A-D]", fullmatch=True),
    "uk-nhs": st.from_regex(r"[0-9]{10}", fullmatch=True),
    "de-tax": st.from_regex(r"[1-9][0-9]{10}", fullmatch=True),
    "fr-nir": st.from_regex(r"[12][0-9]{14}", fullmatch=True),
    "es-dni": st.from_regex(r"[0-9]{8}[A-Z]", fullmatch=True),
    "in-aadhaar": st.from_regex(r"[2-9][0-9]{3} [0-9]{4} [0-9]{4}", fullmatch=True),
    "cn-resident": st.from_regex(r"[1-8][0-9]{16}[0-9X]", fullmatch=True),
    "credentials": st.from_regex(r"[a-z]{1,9}:[a-z0-9]{1,9}", fullmatch=True),
}


def opened(workspace: Workspace, text: str) -> Workspace:
    path = workspace.root / FILE_NAME
    path.write_text(path.read_text() + text)
    return open_workspace(workspace.root)


@pytest.mark.parametrize("recogniser", finding.RECOGNISERS, ids=lambda one: one.kind)
@pytest.mark.parametrize("policy", ["mask", "replace", "hash"])
def test_what_came_through_once_stays(workspace: Workspace, policy: str, recogniser: Recogniser) -> None:
    """A text is exported, labelled elsewhere and found again by its hash."""
    with open_workspace(workspace.root, overrides={"privacy.personal": policy}) as ws:
        door = Door(ws)
        cleaned = door.clean("c", recogniser.example)
        (piece,) = cleaned.pieces
        assert piece.kind == recogniser.kind
        assert piece.value not in cleaned.text
        assert cleaned.undone.text == recogniser.example
        assert door.clean("c", cleaned.text) == Cleaned(cleaned.text)
        name = door.name("c", recogniser.example)
        assert piece.value not in name
        assert door.name("c", name) == name
        assert piece.value not in door.shown(recogniser.example)


@given(st.data())
@pytest.mark.parametrize("kind", finding.KINDS)
def test_surrogates_are_nobodys_and_one_to_a_value(kind: str, data: st.DataObject) -> None:
    one, other = data.draw(FORMS[kind]), data.draw(FORMS[kind])
    mine = surrogates.surrogate(KEY, "c", kind, one)
    assert mine == surrogates.surrogate(KEY, "c", kind, one)
    assert len({mine, surrogates.surrogate(KEY, "d", kind, one), surrogates.surrogate(b"j" * 32, "c", kind, one)}) == 3
    assert finding.find(mine) == []
    assert not any(list(line.places(mine)) for line in surrogates._WHEREVER if line.kind == kind)
    if kind != "us-ssn" and surrogates.normal(kind, one) != surrogates.normal(kind, other):
        # of social security numbers, five million pairs share one
        assert mine != surrogates.surrogate(KEY, "c", kind, other)


@pytest.mark.parametrize(
    ("kind", "one", "same"),
    [
        ("e-mail", "Jane@Shop.example", "jane@shop.example"),
        ("card", "4111 1111 1111 1111", "4111-1111-1111-1111"),
        ("ip", "2A02:908::1", "2a02:0908::0001"),
        ("uk-nino", "AB 12 34 56 C", "ab123456c"),
    ],
)
def test_a_value_written_otherwise_is_the_same(kind: str, one: str, same: str) -> None:
    digits = [
        "".join(c for c in surrogates.surrogate(KEY, "c", kind, value) if c.isalnum()).upper() for value in (one, same)
    ]
    assert digits[0] == digits[1]


def test_each_channel_has_its_policy(workspace: Workspace) -> None:
    text = 'privacy.personal = "mask"\n[channels.open]\npersonal = "off"\n[channels.shut]\npersonal = "drop"\n'
    with opened(workspace, text.replace("privacy.personal", "[privacy]\npersonal")) as ws:
        door = Door(ws)
        assert door.clean("web", "a@b.de").text == "<e-mail>"
        assert door.clean("open", "a@b.de").text == "a@b.de"
        assert door.name("open", "a@b.de") == "a@b.de"
        with pytest.raises(BadInput) as refused:
            door.clean("shut", "to a@b.de or +49 171 2345678")
        assert refused.value.value == "e-mail, phone"
        assert door.clean(None, "a@b.de").text == "<e-mail>"


def test_a_channel_alone_may_have_one(workspace: Workspace) -> None:
    with opened(workspace, '[channels.web]\npersonal = "hash"\n') as ws:
        door = Door(ws)
        assert door.is_on
        assert door.clean("other", "a@b.de").text == "a@b.de"
        assert door.clean(None, "a@b.de").text == "<e-mail>", "what is about no one channel"
        assert door.shown("a@b.de") == "<e-mail>"


def test_only_the_kinds_that_are_asked_for(workspace: Workspace) -> None:
    settings = {"privacy.personal": "mask", "privacy.kinds": ("phone",)}
    with open_workspace(workspace.root, overrides=settings) as ws:
        assert Door(ws).clean("c", "a@b.de +49 171 2345678").text == "a@b.de <phone>"
    with (
        open_workspace(workspace.root, overrides={**settings, "privacy.kinds": ("fone",)}) as ws,
        pytest.raises(BadConfig, match="phone"),
    ):
        Door(ws)


def test_off_makes_no_key(workspace: Workspace) -> None:
    door = Door(workspace)
    assert not door.is_on
    assert door.clean("c", "a@b.de").text == door.name("c", "a@b.de") == door.shown("a@b.de") == "a@b.de"
    assert not (workspace.state_folder / "keys" / "surrogates.key").exists()


def test_the_key_is_for_its_owner_alone(workspace: Workspace) -> None:
    with open_workspace(workspace.root, overrides={"privacy.personal": "replace"}) as ws:
        Door(ws).clean("c", "a@b.de")
    assert (workspace.state_folder / "keys" / "surrogates.key").stat().st_mode & 0o777 == 0o600


LETTERS = st.text(alphabet="ab ", max_size=9)


@given(LETTERS, st.lists(st.tuples(st.sampled_from(["x@y.de", "81.2.69.142"]), LETTERS), max_size=3), st.data())
def test_spans_move_with_what_they_point_at(begin: str, rest: list[tuple[str, str]], data: st.DataObject) -> None:
    """Against the same moved letter by letter."""
    text, pieces, now = begin, [], begin
    places = list(range(len(begin) + 1))  # where each place of the text is now
    for value, after in rest:
        pieces.append(Piece("k", len(text), len(text) + len(value), value, "<what>"))
        places[-1:] = [len(now), *[-1] * (len(value) - 1)]
        text, now = text + value, now + "<what>"
        places += range(len(now), len(now) + len(after) + 1)
        text, now = text + after, now + after
    became = Cleaned(now, tuple(pieces))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    moved_start, moved_end = became.moved(start, end)
    if places[start] >= 0:
        assert moved_start == places[start]
    if places[end] >= 0:
        assert moved_end == places[end]
    assert now[moved_start:moved_end].replace("<what>", "").strip("ab ") == ""
    assert became.undone.text == text
    if places[start] >= 0 and places[end] >= 0:
        assert became.undone.moved(moved_start, moved_end) == (start, end)


def test_labels_that_point_are_moved() -> None:
    became = Cleaned("ask <e-mail> of Acme", (Piece("e-mail", 4, 10, "a@b.de", "<e-mail>"),))
    assert moved_target([[4, 10, "PERSON"], [14, 18, "ORG"]], became) == [[4, 12, "PERSON"], [16, 20, "ORG"]]
    answers = {"answers": [{"start": 14, "text": "Acme"}, {"start": 0, "text": "ask a@b"}]}
    moved = {"answers": [{"start": 16, "text": "Acme"}, {"start": 0, "text": "ask <e-mail>"}]}
    assert moved_target(answers, became) == moved
    spans = [{"start": 14, "end": 18, "labels": ["ORG"], "text": "Acme"}, "odd", {"start": None}]
    assert moved_spans(spans, became) == [{"start": 16, "end": 20, "labels": ["ORG"], "text": "Acme"}, *spans[1:]]


def test_names_that_get_too_long_become_one_digest(workspace: Workspace) -> None:
    with open_workspace(workspace.root, overrides={"privacy.personal": "mask"}) as ws:
        door = Door(ws)
        name = door.name("c", " ".join(["a@b.de"] * 25))
        assert len(name) < 200
        assert name != door.name("c", " ".join(["a@c.de"] * 25))


WIDE = {ord(c): ord(c) + 0xFEE0 for c in "0123456789"}  # full width
DIGITS = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.decimal(c, None) is not None)


@given(
    st.lists(
        st.one_of(
            st.text(alphabet=DIGITS, min_size=1, max_size=4),
            st.sampled_from(
                ["81.2.69.142".translate(WIDE), "٨١.٢.٦٩.١٤٢", "2a02:908:1:20::1f".translate(WIDE), "۲۳۴۱ ۲۳۴۱ ۲۳۴۶"]
            ),
            st.sampled_from(".:-+/ @aDE\uff0b\uff1a"),
        ),
        max_size=12,
    ).map("".join)
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_digits_of_no_script_break_the_door(workspace: Workspace, text: str) -> None:
    """Python's own readers of numbers and addresses take some of them and refuse others."""
    for policy in ("mask", "replace", "hash", "drop"):
        with open_workspace(workspace.root, overrides={"privacy.personal": policy}) as ws:
            door = Door(ws)
            door.name("c", text)
            try:
                cleaned = door.clean("c", text)
            except BadInput:
                assert policy == "drop"
            else:
                assert cleaned.undone.text == text


def test_an_address_in_other_digits_is_the_same_address(workspace: Workspace) -> None:
    with open_workspace(workspace.root, overrides={"privacy.personal": "replace"}) as ws:
        door = Door(ws)
        assert door.clean("c", "81.2.69.142".translate(WIDE)).text == door.clean("c", "81.2.69.142").text


def test_long_texts_are_not_waited_for(workspace: Workspace) -> None:
    with open_workspace(workspace.root, overrides={"privacy.personal": "mask"}) as ws:
        assert not Door(ws).takes_long(["a" * 5_000, ("a" * 5_000, "b" * 10_000)])
        assert Door(ws).takes_long(["a" * 5_000, ("a" * 5_000, "b" * 10_001)])


@pytest.mark.parametrize("n", [10, 130, 1_000, 100_000])
def test_an_error_says_the_beginning_of_a_long_text_and_nothing_personal(workspace: Workspace, n: int) -> None:
    text = "81.2.69.142 " * n
    with open_workspace(workspace.root, overrides={"privacy.personal": "mask"}) as ws:
        error = Door(ws).error(BadInput("no such task", value=text))
    assert "<ip>" in str(error)
    assert "81.2" not in str(error)
    assert len(str(error)) < 300
    assert n < 1_000 or f"({len(text)} characters)" in str(error)


def test_errors_say_nothing_personal(workspace: Workspace, tmp_path: Path) -> None:
    with open_workspace(workspace.root, overrides={"privacy.personal": "mask"}) as ws:
        error = Door(ws).error(BadInput("no such name: a@b.de", value=["a@b.de"], next_step="Ask a@b.de"))
    assert "a@b.de" not in str(error)
    assert error.envelope()["error"]["value"] == "['<e-mail>']"  # type: ignore[index]
    assert Door(workspace).error(BadInput("no", value=7)).value == 7
