"""What a text, a client message id and mentions may be, and what tells a retry from another message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.messages import (
    MENTIONS_MAX,
    TEXT_MAX,
    check_client_msg_id,
    checked_mentions,
    content_digest,
    normalised_text,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1, max_size=100)


@given(TEXTS)
def test_a_text_is_kept_as_it_came(text: str) -> None:
    assert normalised_text(text) == text


@pytest.mark.parametrize(
    ("given_text", "stored"),
    [
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("\r\r\n", "\n\n"),
        (" \t\x01é\u200d🌊 ", " \t\x01é\u200d🌊 "),
    ],
)
def test_only_line_ends_are_normalised(given_text: str, stored: str) -> None:
    assert normalised_text(given_text) == stored


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=100))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalised_text(normalised_text(text)) == normalised_text(text)


def test_length_is_counted_in_characters_after_normalising() -> None:
    assert len(normalised_text("🌊" * TEXT_MAX)) == TEXT_MAX
    assert len(normalised_text("\r\n" * TEXT_MAX)) == TEXT_MAX


@pytest.mark.parametrize("text", ["", "x" * (TEXT_MAX + 1), "a\x00b", "\x00", "\ud800", "a\udfffb", "\udc80\ud800"])
def test_a_text_that_cannot_be_is_refused_by_field(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        normalised_text(text)
    assert (refusal.value.code, refusal.value.field) == ("invalid", "body.text")


@given(st.from_regex(r"[!-~]{1,64}", fullmatch=True))
def test_a_client_message_id_is_taken_as_it_is(client_msg_id: str) -> None:
    assert check_client_msg_id(client_msg_id) == client_msg_id


@pytest.mark.parametrize("client_msg_id", ["", "x" * 65, "a b", "é", "a\n", "\x7f", "a\x00"])
def test_what_is_no_client_message_id_is_refused_by_field(client_msg_id: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check_client_msg_id(client_msg_id, field="client_conversation_id")
    assert refusal.value.field == "client_conversation_id"


def test_mentions_are_kept_once_and_in_order() -> None:
    assert checked_mentions(["bob", "alice", "bob"]) == ["bob", "alice"]
    assert checked_mentions([]) == []


@pytest.mark.parametrize("mentions", [["b ob"], [""], [f"user{i}" for i in range(MENTIONS_MAX + 1)]])
def test_bad_or_too_many_mentions_are_refused_by_field(mentions: list[str]) -> None:
    with pytest.raises(Invalid) as refusal:
        checked_mentions(mentions)
    assert refusal.value.field == "mentions"


@given(TEXTS, TEXTS, st.none() | st.integers(1, 99), st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True))
def test_a_digest_tells_a_retry_from_another_message(
    text: str, other: str, reply_to: int | None, mentions: list[str]
) -> None:
    digest = content_digest({"type": "text", "text": text}, reply_to, mentions)
    assert digest == content_digest({"text": text, "type": "text"}, reply_to, mentions)
    if other != text:
        assert digest != content_digest({"type": "text", "text": other}, reply_to, mentions)
    assert digest != content_digest({"type": "text", "text": text}, (reply_to or 0) + 1, mentions)
    assert digest != content_digest({"type": "text", "text": text}, reply_to, [*mentions, "c"])


def test_the_digest_of_a_message_never_changes() -> None:
    # Snapshots hold digests: with other ones every retry of a kept message would be told a conflict.
    assert content_digest({"type": "text", "text": "é"}, 7, ["bob"]).hex() == "8df19c456565dda3"
