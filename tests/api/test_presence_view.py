"""What others see of a user, made of what was read: pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.presence_view import (
    Choice,
    ChosenStatus,
    Entry,
    PresenceView,
    Seen,
    chosen_in,
    presence_signal,
    status_signal,
    without_loss,
)


def entry(*kinds: str, idle: bool = False) -> Entry:
    return Entry("g:1", kinds, idle)


@pytest.mark.parametrize(
    ("entries", "chosen", "status"),
    [
        ((), None, "offline"),
        ((), "busy", "offline"),
        ((entry("web"),), None, "online"),
        ((entry("web"),), "online", "online"),
        ((entry("web", idle=True),), "online", "away"),
        ((entry("web", idle=True), entry("mobile")), None, "online"),
        ((entry("web"),), "away", "away"),
        ((entry("web"),), "busy", "busy"),
        ((entry("web", idle=True),), "busy", "busy"),
        ((entry("web"),), "invisible", "offline"),
    ],
)
def test_a_status_is_made_of_sessions_and_choice(
    entries: tuple[Entry, ...], chosen: ChosenStatus | None, status: str
) -> None:
    choice = Choice(chosen, 1) if chosen is not None else None
    view = Seen("bob", entries, choice, 1_800_000_000_123).view
    assert view.status == status
    assert (view.devices == ()) is (status == "offline")
    assert view.last_seen == ("2027-01-15T08:00:00.123Z" if status == "offline" else None)


devices = st.sets(st.sampled_from(["desktop", "mobile", "tablet", "web"])).map(lambda kinds: tuple(sorted(kinds)))
views = st.builds(
    lambda kinds, status: PresenceView("bob", status if kinds else "offline", kinds),
    devices,
    st.sampled_from(["online", "busy", "away"]),
)


@given(views, views)
def test_without_loss_nothing_shown_goes_and_all_that_came_is_there(shown: PresenceView, seen: PresenceView) -> None:
    kept = without_loss(shown, seen)
    assert set(kept.devices) == {*shown.devices, *seen.devices}
    assert kept.status == (seen.status if seen.devices or shown.status == "offline" else shown.status)
    assert without_loss(kept, seen) == kept
    if set(shown.devices) <= set(seen.devices):
        assert kept == seen


def test_the_push_has_the_words_of_the_protocol() -> None:
    assert presence_signal(PresenceView("bob", "online", ("desktop",))) == (
        b'{"signal":{"type":"presence","user_id":"bob","status":"online","devices":["desktop"],"last_seen":null}}'
    )
    assert chosen_in(status_signal("busy")) == "busy"


@pytest.mark.parametrize("choice", [Choice("busy", 1_800_000_000_000), Choice("online", 0)])
def test_a_choice_survives_packing(choice: Choice) -> None:
    assert Choice.unpacked(choice.packed()) == choice
    for nothing in (b"", b":", b"1:dancing", b"x:busy", b"1"):
        assert Choice.unpacked(nothing) is None
