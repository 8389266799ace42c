"""Subjects: every name NATS gets from us is one that NATS takes, and stands for one thing."""

import re

from hypothesis import given
from hypothesis import strategies as st

from domain.ids import ReservationKey, creation_key, direct_key, pair_key
from streams import subjects
from streams.topology import PARTITIONS_MAX, Topology

USER_IDS = st.from_regex(r"[A-Za-z0-9_.:@|^\[\]{}\\`~-]{1,64}", fullmatch=True)
KEYS = st.one_of(
    st.builds(direct_key, USER_IDS, USER_IDS),
    st.builds(pair_key, USER_IDS, USER_IDS),
    st.builds(creation_key, USER_IDS, st.from_regex(r"[!-~]{1,64}", fullmatch=True)),
)
TOKEN = re.compile(r"[^.*>\s]+")


def test_the_names_are_the_ones_in_the_log_for_ever() -> None:
    assert subjects.stream("conv", 3) == "CONV-3"
    assert subjects.partition_subjects("conv", 3) == "conv.3.>"
    assert subjects.stream("user", 3) == "USER-3"
    assert subjects.aggregate("conv", 3, "77") == "conv.3.77"
    assert subjects.aggregate("user", 3, "a.b") == "user.3.a%2Eb"
    assert subjects.live_conversation("77") == "live.conv.77"
    assert subjects.live_user("ann") == "live.user.ann"
    assert subjects.live_presence("ann") == "live.presence.ann"
    assert subjects.signal_conversation("77") == "signal.conv.77"
    assert subjects.command("conv", 3) == "cmd.conv.3"
    assert subjects.command("user", 3) == "cmd.user.3"
    assert subjects.dead("heads", 3) == "dead.heads.3"
    assert subjects.consumer("heads", 3) == "heads-3"


@given(USER_IDS, USER_IDS)
def test_every_user_has_one_token_of_its_own(user: str, other: str) -> None:
    token = subjects.live_user(user).removeprefix("live.user.")
    assert TOKEN.fullmatch(token)
    assert (subjects.live_user(other) == subjects.live_user(user)) == (other == user)


def test_an_escaped_user_is_not_mistaken_for_one_whose_id_looks_so() -> None:
    assert len({subjects.live_user(user) for user in ("a.b", "a%2Eb", "a%252Eb", "a*b", "a>b", "a b", "ab")}) == 7


@given(st.integers(1, (1 << 63) - 1).map(str), st.integers(0, 1023))
def test_a_conversation_is_found_in_its_subject(conversation_id: str, partition: int) -> None:
    subject = subjects.aggregate(subjects.CONV, partition, conversation_id)
    assert subjects.aggregate_id(subject) == conversation_id
    assert subject.count(".") == 2  # what `conv.<p>.*` republishes


@given(USER_IDS, st.integers(0, 1023))
def test_a_user_is_found_in_their_subject_and_heard_under_the_same_token(user: str, partition: int) -> None:
    subject = subjects.aggregate(subjects.USER, partition, user)
    assert subjects.aggregate_id(subject) == user
    assert subjects.family_of(subject) == subjects.USER
    assert subject.count(".") == 2  # what `user.<p>.*` republishes
    assert subjects.live_user(user) == f"live.user.{subject.rpartition('.')[2]}"
    assert subjects.live_presence(user) == f"live.presence.{subject.rpartition('.')[2]}"


@given(KEYS, st.integers(0, 1023))
def test_a_reservation_or_a_pair_is_found_in_its_subject_and_is_no_conversation(
    key: ReservationKey, partition: int
) -> None:
    subject = subjects.aggregate(subjects.CONV, partition, key.value)
    assert subjects.aggregate_id(subject) == key.value
    assert subject.count(".") == 3  # one token more: not republished
    assert all(TOKEN.fullmatch(token) for token in subject.split("."))


@given(st.integers(0, 10).map(lambda power: Topology(partitions=1 << power)))
def test_each_partition_of_a_family_is_one_stream_that_republishes(topology: Topology) -> None:
    *partitions, dead, archive = topology.streams()
    conversations, users = partitions[: topology.partitions], partitions[topology.partitions :]
    assert [spec.name for spec in conversations] == [f"CONV-{p}" for p in range(topology.partitions)]
    assert [spec.name for spec in users] == [f"USER-{p}" for p in range(topology.partitions)]
    assert (dead.name, archive.name) == ("DEAD", "ARCHIVE")
    for specs, family in ((conversations, "conv"), (users, "user")):
        for partition, spec in enumerate(specs):
            assert spec.subjects == (f"{family}.{partition}.>",)
            assert spec.republish is not None
            assert spec.republish.source == f"{family}.{partition}.*"  # a reservation and a pair have one token more
            assert spec.republish.destination == f"live.{family}.{{{{wildcard(1)}}}}"


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_originator_has_one_token_of_its_own(originator: str, other: str) -> None:
    subject = subjects.recorded("School", originator)
    assert TOKEN.fullmatch(subject.removeprefix("es.School."))
    assert subjects.originator_id(subject) == originator
    assert (subjects.recorded("School", other) == subject) is (other == originator)


@given(st.sampled_from(subjects.FAMILIES), st.integers(0, PARTITIONS_MAX - 1))
def test_riverruns_own_streams_are_known_by_their_names(family: str, partition: int) -> None:
    name = subjects.stream(family, partition)
    assert subjects.partition_of(name) == (family, partition)
    for other in (
        name.lower(),
        f"{name}-snapshots",
        f"{name} ",
        f"0{name}",
        family.upper(),
        "CONV-01",
        "DEAD",
        "School",
    ):
        assert subjects.partition_of(other) is None
