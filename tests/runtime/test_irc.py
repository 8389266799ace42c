"""IRC lines: what becomes a message, and with exactly which text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.irc import Line, message_of, parse


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[08:36] <mole_> hello there", ("mole_", "hello there")),
        (b"[08:36] <a>  two spaces, one is text ", ("a", " two spaces, one is text ")),
        (b"[08:36] <a> \t\x02bold\x0f\x1f ", ("a", "\t\x02bold\x0f\x1f ")),
        (b"[08:36] <a> <b> quoted", ("a", "<b> quoted")),
        (b"[08:36] <a> next\x85line \xe2\x80\xa8 stays", ("a", "next\ufffdline \u2028 stays")),
        (b"[08:36] <a> caf\xe9", ("a", "caf\ufffd")),
        (b"[08:36] <a> windows\r", ("a", "windows")),
        (b"[08:36] <[D-Tail] > hi", ("[D-Tail]", "hi")),
        (b"[08:36] <[NP] Tangent> hi", ("[NP]Tangent", "hi")),
        (b"[08:36] <bur[n] er_> hi", ("bur[n]er_", "hi")),
        (b"[08:36]  * nick waves  at all", ("nick", "/me waves  at all")),
        (b"[08:36]  * [NP] Tangent waves", ("[NP]Tangent", "/me waves")),
        (b"[11:19] <citrix>", ("citrix", "")),
        (b"[11:19] <citrix> ", ("citrix", "")),
        (b"[11:19]  * citrix", ("citrix", "")),
        (b"=== aisipos [~anton@dsl081] has joined #ubuntu", None),
        (b"", None),
        (b"[8:36] <a> not a time", None),
        (b"<a> no time", None),
    ],
)
def test_a_line_gives_its_nick_and_text(line: bytes, message: tuple[str, str] | None) -> None:
    assert message_of(line) == message


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1))
def test_any_text_comes_through_unchanged(text: str) -> None:
    assert message_of(f"[00:00] <a> {text}".encode()) == ("a", text)


def test_a_file_splits_at_line_feeds_only_and_its_lines_are_numbered_from_one() -> None:
    log = parse(b"=== start\n[00:00] <a> one\x0b\x0c\x1c\n\n[00:01] <b>\n[00:02]  * a ends")
    assert log.lines == [Line(2, "a", "one\x0b\x0c\x1c", ""), Line(5, "a", "/me ends", "")]
    assert log.without_text == 1
    assert log.refused == []


def test_who_is_addressed_has_written_before_so_that_a_log_may_grow() -> None:
    text = b"[00:00] <a> b: hi\n[00:01] <b> a, hello\n[00:02] <a> b: a: well\n[00:03] <b> b: me\n[00:04] <b> a:here\n"
    assert [line.addressee for line in parse(text).lines] == ["", "a", "b", "", ""]
    for size in range(5):
        begin = b"".join(text.splitlines(keepends=True)[:size])
        assert parse(begin).lines == parse(text).lines[:size]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[00:00] <a> " + b"x" * 8193, "8,192"),
        (b"[00:00] <a> nul \x00", "NUL"),
        (b"[00:00] <a/b> text", "user id"),
        (b"[00:00] <" + b"n" * 65 + b"> text", "user id"),
        (b"[00:00] <> text", "user id"),
    ],
)
def test_what_cannot_be_a_message_is_refused_with_its_line_and_reason(line: bytes, reason: str) -> None:
    log = parse(b"=== notice\n" + line + b"\n")
    assert log.lines == []
    [(number, why)] = log.refused
    assert number == 2
    assert reason in why


def test_the_longest_text_is_a_message() -> None:
    assert len(parse(b"[00:00] <a> " + b"x" * 8192).lines) == 1
