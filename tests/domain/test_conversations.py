"""The rules of conversations, one by one: given events, when a command, then events, or a refusal by its code."""

from datetime import timedelta

import pytest

from domain.conversations import NAME_MAX, Conversation
from domain.errors import DomainError, Forbidden, Invalid, NotFound
from domain.members import MEMBERS_PER_COMMAND_MAX, Kind, Role
from tests.domain.given import ADMIN, ID, OWNER, START, Story, added, created, given, posted, refused, removed

USERS = [f"user{i}" for i in range(2 * MEMBERS_PER_COMMAND_MAX)]


def create(kind: Kind = "group", *, members: list[str], name: str | None = None, **settings: str) -> Story:
    return Story(
        Conversation.create(
            ID, actor_id=OWNER, kind=kind, members=members, name=name, settings=dict(settings), now=START
        )
    )


# -- creating -----------------------------------------------------------------------------------------------


def test_the_creator_owns_a_group_and_is_a_member_of_it() -> None:
    assert create(members=["mia", OWNER, "mia"], name="Rapids").then() == [
        (
            "conversation.created",
            {
                "kind": "group",
                "name": "Rapids",
                "members": {OWNER: "owner", "mia": "member"},
                "settings": {"post": "members", "invite": "admins"},
            },
        )
    ]


def test_settings_may_be_chosen_at_the_beginning() -> None:
    ((_, fields),) = create("channel", members=[], post="members", invite="members").then()
    assert fields["settings"] == {"post": "members", "invite": "members"}
    ((_, fields),) = create("channel", members=[]).then()
    assert fields["settings"] == {"post": "admins", "invite": "admins"}


def test_a_direct_conversation_has_two_members_and_no_owner() -> None:
    ((_, fields),) = create("direct", members=["mia"]).then()
    assert fields["members"] == {OWNER: "member", "mia": "member"}


@pytest.mark.parametrize("members", [[], [OWNER], ["mia", "noa"]])
def test_a_direct_conversation_needs_exactly_one_other(members: list[str]) -> None:
    with refused(Invalid, "members"):
        create("direct", members=members)


def test_a_direct_conversation_has_neither_name_nor_settings() -> None:
    with refused(Invalid, "name"):
        create("direct", members=["mia"], name="Us")
    with refused(Invalid, "settings"):
        create("direct", members=["mia"], post="admins")


def test_a_conversation_begins_with_at_most_as_many_members_as_one_call_takes() -> None:
    assert len(create(members=USERS[: MEMBERS_PER_COMMAND_MAX - 1]).conversation.members) == MEMBERS_PER_COMMAND_MAX
    with refused(Invalid, "members"):
        create(members=USERS[:MEMBERS_PER_COMMAND_MAX])


@pytest.mark.parametrize("name", ["", " ", "\u3000 ", "a\nb", "a\x00", "\ud800", "x" * (NAME_MAX + 1)])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with refused(Invalid, "name"):
        create(members=[], name=name)
    with refused(Invalid, "name"):
        given(created()).update(OWNER, name=name)


def test_bad_members_and_settings_are_refused() -> None:
    with refused(Invalid, "members"):
        create(members=["not a user"])
    with refused(Invalid, "settings.post"):
        create(members=[], post="nobody")


# -- changing it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [OWNER, ADMIN])
def test_the_owner_and_admins_rename_and_set(actor: str) -> None:
    group = given(created(members=["mia"], name="Rapids"))
    group.update(actor, name="White water", post="admins")
    assert group.then() == [
        ("conversation.updated", {"name": "White water", "settings": {"post": "admins", "invite": "admins"}})
    ]


def test_what_is_not_given_stays() -> None:
    group = given(created(name="Rapids", settings={"invite": "members"}))
    group.update(OWNER, post="admins")
    group.update(OWNER, name="White water")
    assert [fields for _, fields in group.then()] == [
        {"name": "Rapids", "settings": {"post": "admins", "invite": "members"}},
        {"name": "White water", "settings": {"post": "admins", "invite": "members"}},
    ]


def test_a_change_of_nothing_makes_no_event() -> None:
    group = given(created(name="Rapids"))
    group.update(OWNER)
    group.update(OWNER, name="Rapids", post="members")
    assert group.then() == []


def test_members_and_strangers_change_nothing() -> None:
    group = given(created(members=["mia"]))
    with refused(Forbidden):
        group.update("mia", name="Mine")
    with refused(NotFound):
        group.update("stranger", name="Mine")
    with refused(Invalid, "settings.colour"):
        group.update(OWNER, colour="blue")
    assert group.then() == []


def test_a_direct_conversation_cannot_be_changed() -> None:
    direct = given(created("direct", members=["mia"]))
    with refused(Forbidden):
        direct.update(OWNER, name="Us")
    with refused(Forbidden):
        direct.change(OWNER, add=["noa"])
    with refused(Forbidden):
        direct.change("mia", remove=["mia"])
    with refused(NotFound):
        direct.change("stranger", remove=["mia"])
    assert direct.then() == []


# -- members ------------------------------------------------------------------------------------------------


def test_members_come_and_go_and_join_after_the_last_message() -> None:
    group = given(created(members=["mia"]), posted("mia", "1"))
    group.change(ADMIN, add=["noa", "noa", "ben"], remove=["mia"])
    assert group.then() == [
        ("member.added", {"user_id": "noa", "role": "member", "joined_seq": 2}),
        ("member.added", {"user_id": "ben", "role": "member", "joined_seq": 2}),
        ("member.removed", {"user_id": "mia"}),
    ]


def test_what_is_already_so_makes_no_event() -> None:
    group = given(created(members=["mia"]), removed("mia"), added("noa"))
    group.change(OWNER, add=["noa"], remove=["mia"], roles={"noa": "member", ADMIN: "admin"})
    assert group.then() == []


def test_a_removed_member_may_come_back_as_a_plain_one() -> None:
    group = given(created())
    group.change(OWNER, remove=[ADMIN])
    group.change(OWNER, add=[ADMIN])
    assert group.then()[1] == ("member.added", {"user_id": ADMIN, "role": "member", "joined_seq": 1})


@pytest.mark.parametrize(("invite", "allowed"), [("admins", False), ("members", True)])
def test_the_setting_says_whether_members_add_others(invite: str, allowed: bool) -> None:
    group = given(created(members=["mia"], settings={"invite": invite}))
    if allowed:
        group.change("mia", add=["noa"])
        assert [kind for kind, _ in group.then()] == ["member.added"]
    else:
        with refused(Forbidden):
            group.change("mia", add=["noa"])


@pytest.mark.parametrize(
    ("actor", "target"), [(ADMIN, OWNER), (ADMIN, "other-admin"), ("mia", "noa"), ("mia", OWNER), ("mia", ADMIN)]
)
def test_nobody_removes_one_of_their_own_rank_or_above(actor: str, target: str) -> None:
    group = given(created(members=["mia", "noa", "other-admin"], settings={"invite": "members"}))
    group.change(OWNER, roles={"other-admin": "admin"})
    group.take()
    with refused(Forbidden, "remove"):
        group.change(actor, remove=[target])
    assert group.then() == []


def test_anybody_may_leave_and_then_is_a_stranger() -> None:
    group = given(created(members=["mia"]))
    group.change("mia", remove=["mia"])
    assert group.then() == [("member.removed", {"user_id": "mia"})]
    with refused(NotFound):
        group.change("mia", remove=["mia"])
    with refused(NotFound):
        group.post("mia", "1")


@pytest.mark.parametrize(
    ("members", "first_out", "heir"), [(["mia"], [], ADMIN), (["mia", "noa"], [ADMIN], "mia"), ([], [ADMIN], None)]
)
def test_the_longest_standing_admin_else_member_inherits(
    members: list[str], first_out: list[str], heir: str | None
) -> None:
    group = given(created(members=members))
    group.change(OWNER, remove=first_out)
    group.take()
    group.change(OWNER, remove=[OWNER])
    inherited = [("member.updated", {"user_id": heir, "role": "owner"})] if heir else []
    assert group.then() == [("member.removed", {"user_id": OWNER}), *inherited]


def test_the_owner_gives_and_takes_roles() -> None:
    group = given(created(members=["mia"]))
    group.change(OWNER, roles={"mia": "admin", ADMIN: "member"})
    assert group.then() == [
        ("member.updated", {"user_id": "mia", "role": "admin"}),
        ("member.updated", {"user_id": ADMIN, "role": "member"}),
    ]


@pytest.mark.parametrize(
    ("actor", "roles", "refusal", "field"),
    [
        (ADMIN, {"mia": "admin"}, Forbidden, "roles"),
        ("mia", {"mia": "admin"}, Forbidden, "roles"),
        (OWNER, {OWNER: "member"}, Forbidden, "roles"),
        (OWNER, {"mia": "owner"}, Invalid, "roles.mia"),
        (OWNER, {"mia": "king"}, Invalid, "roles.mia"),
        (OWNER, {"noa": "admin"}, Invalid, "roles.noa"),
        ("stranger", {"mia": "admin"}, NotFound, None),
    ],
)
def test_roles_that_cannot_be_given_are_refused(
    actor: str, roles: dict[str, Role], refusal: type[DomainError], field: str | None
) -> None:
    group = given(created(members=["mia"]))
    with refused(refusal, field):
        group.change(actor, roles=roles)
    assert group.then() == []


def test_a_change_of_members_is_all_or_nothing() -> None:
    group = given(created(members=["mia"]))
    with refused(Invalid, "roles.noa"):
        group.change(OWNER, add=["noa"], remove=["mia"], roles={"noa": "admin"})
    with refused(Invalid, "roles.mia"):
        group.change(OWNER, remove=["mia"], roles={"mia": "admin"})
    with refused(Invalid, "remove"):
        group.change(OWNER, add=["noa"], remove=["noa"])
    with refused(Invalid, "add"):
        group.change(OWNER, add=["not a user"])
    with refused(Invalid, "remove"):
        group.change(OWNER, remove=["not a user"])
    assert group.then() == []


def test_one_call_changes_at_most_a_thousand_members() -> None:
    group = given(created())
    group.change(OWNER, add=USERS[:MEMBERS_PER_COMMAND_MAX])
    assert len(group.take()) == MEMBERS_PER_COMMAND_MAX
    with refused(Invalid, "add"):
        group.change(OWNER, add=USERS[MEMBERS_PER_COMMAND_MAX:], remove=[USERS[0]])


def test_one_call_never_makes_more_events_than_one_append_takes() -> None:
    group = given(created())
    group.change(OWNER, add=USERS[:MEMBERS_PER_COMMAND_MAX])
    group.take()
    leaving = [OWNER, *USERS[: MEMBERS_PER_COMMAND_MAX - 1]]
    with refused(Invalid, "add"):  # an event for each, and one for the heir
        group.change(OWNER, remove=leaving)
    group.change(OWNER, remove=leaving[:-1])
    assert len(group.take()) == MEMBERS_PER_COMMAND_MAX


def test_a_conversation_is_full_at_its_kinds_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domain.conversations.MEMBERS_MAX", {"direct": 2, "group": 4, "channel": 5})
    group, channel = given(created(members=["mia"])), given(created("channel", members=["mia"]))
    for conversation, room in ((group, 1), (channel, 2)):
        with refused(Invalid, "add"):
            conversation.change(OWNER, add=USERS[: room + 1])
        conversation.change(OWNER, add=USERS[:room])
        assert len(conversation.then()) == room


# -- what it weighs -----------------------------------------------------------------------------------------


def test_its_weight_grows_with_members_and_messages() -> None:
    group = given(created())
    empty = group.conversation.size_bytes
    group.change(OWNER, add=USERS[:100])
    with_members = group.conversation.size_bytes
    group.post(OWNER, "1")
    assert empty < with_members < group.conversation.size_bytes


def test_its_last_event_says_when_it_changed() -> None:
    group = given(created())
    assert group.conversation.modified_on == START + timedelta(seconds=1)
    group.post(OWNER, "1")
    assert group.conversation.modified_on == group.now
