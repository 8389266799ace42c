"""What was just written, by whom."""

from api.recent_writes import RecentWrites


def test_a_write_is_known_to_those_it_concerns_only() -> None:
    recent = RecentWrites()
    recent.note(7, 3, ["alice", "bob"])
    assert [recent.version_of(7, user) for user in ("alice", "bob", "mallory")] == [3, 3, 0]
    assert recent.version_of(8, "alice") == 0


def test_an_older_version_never_replaces_a_newer() -> None:
    recent = RecentWrites()
    recent.note(7, 5, ["alice"])
    recent.note(7, 4, ["alice"])
    assert recent.version_of(7, "alice") == 5


def test_only_the_version_that_was_waited_for_is_forgotten() -> None:
    recent = RecentWrites()
    recent.note(7, 5, ["alice"])
    recent.forget(7, "alice", 4)
    assert recent.version_of(7, "alice") == 5
    recent.forget(7, "alice", 5)
    recent.forget(7, "alice", 5)
    assert recent.version_of(7, "alice") == 0


def test_the_oldest_is_forgotten_first() -> None:
    recent = RecentWrites(remembered_max=2)
    recent.note(1, 1, ["alice"])
    recent.note(2, 1, ["alice"])
    recent.note(1, 2, ["alice"])
    recent.note(3, 1, ["alice"])
    assert [recent.version_of(conversation, "alice") for conversation in (1, 2, 3)] == [2, 0, 1]


def test_what_was_read_is_asked_for_until_every_tier_has_it() -> None:
    now_s = 1_000.0
    recent = RecentWrites(clock_s=lambda: now_s)
    recent.note(7, 3, ["alice"])
    recent.was_read(7, "alice", 3)
    assert recent.version_of(7, "alice") == 3
    now_s += 11
    recent.was_read(7, "alice", 2)  # of another read, which began before
    assert recent.version_of(7, "alice") == 3
    recent.was_read(7, "alice", 3)
    assert recent.version_of(7, "alice") == 0
    recent.was_read(8, "alice", 3)
