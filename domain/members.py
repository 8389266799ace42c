"""Members of a conversation: roles, and what each may do in which kind of conversation."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from domain.errors import Invalid

Kind: TypeAlias = Literal["direct", "group", "channel"]
Role: TypeAlias = Literal["owner", "admin", "member"]
Who: TypeAlias = Literal["members", "admins"]

ROLES: tuple[Role, ...] = get_args(Role)
MEMBERS_MAX: dict[Kind, int] = {
    "direct": 2,
    "group": 10_000,  # the whole member list is held in memory by the writer: about 1 MB
    "channel": 100_000,
}
MEMBERS_PER_COMMAND_MAX = 1_000  # one event a member, and an atomic batch holds 1,000 (nats-server)


@dataclass(slots=True)
class Member:
    """A user in a conversation. `joined_seq` is the first seq that counts as unread for them."""

    role: Role
    joined_seq: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What a conversation's owner chose.

    post: who may post.
    invite: who may add and remove others. Anybody may leave.
    """

    post: Who = "members"
    invite: Who = "admins"

    def as_dict(self) -> dict[str, Any]:
        """The stored and public form."""
        return {"post": self.post, "invite": self.invite}

    def changed(self, changes: dict[str, Any]) -> "Settings":
        """These settings with `changes` laid over them.

        Raises:
            Invalid: an unknown setting or value.
        """
        for name, value in changes.items():
            if name not in ("post", "invite"):
                raise Invalid(f"there is no setting {name!r}: post, invite", field=f"settings.{name}")
            if value not in get_args(Who):
                raise Invalid("one of: members, admins", field=f"settings.{name}")
        return Settings(**{**self.as_dict(), **changes})


def default_settings(kind: Kind) -> Settings:
    """A channel is for few to post in and many to read; the others are open to their members."""
    return Settings(post="admins") if kind == "channel" else Settings()


def allows(who: Who, role: Role) -> bool:
    """Whether a role is among `who`."""
    return who == "members" or role != "member"


def outranks(role: Role, other: Role) -> bool:
    """Whether a role may remove or change one who has the other: owner over all, admin over member."""
    return role == "owner" or (role == "admin" and other == "member")
