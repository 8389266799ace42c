"""The `Conversation` aggregate: decides what may happen in a conversation, and folds what did.

Decisions (`create`, `update`, `change_members`, `post_message`) either trigger events or raise a domain error;
`fold` is total. The aggregate keeps what deciding needs, not the history: members, settings, the last seq,
the receipts of the most recent messages and a filter of all client message ids older than those.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

from eventsourcing.utils import register_topic

from domain import events
from domain.aggregates import Aggregate
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.ids import check_user_id, slot_of
from domain.members import (
    MEMBERS_MAX,
    MEMBERS_PER_COMMAND_MAX,
    ROLES,
    Kind,
    Member,
    Role,
    Settings,
    allows,
    default_settings,
    outranks,
)
from domain.messages import Receipt, check_client_msg_id, checked_mentions, content_digest, normalised_text
from domain.names import checked_name
from domain.seen import SeenFilter

NAME_MAX = 200
BLOCKED = "you cannot write to this user"  # to both, whoever blocked: it does not say who
RECEIPTS_MAX = 512  # retries come seconds after their first try; older ones are looked up in the read model


class ReceiptUnknown(Exception):
    """A client message id that is older than the receipts kept here, or that only looks seen (see `domain.seen`).

    Not a refusal: look the receipt up where the whole history is and decide again with what was found.

    Attributes:
        up_to_version: the look-up must have seen the conversation up to this version to be believed.
    """

    def __init__(self, sender_id: str, client_msg_id: str, up_to_version: int) -> None:
        super().__init__(client_msg_id)
        self.sender_id = sender_id
        self.client_msg_id = client_msg_id
        self.up_to_version = up_to_version


class Conversation(Aggregate):
    """A durable, ordered exchange among members. Its id is a decimal Snowflake."""

    TOPIC = "conversation"

    kind: Kind

    def __init__(
        self, actor_id: str, kind: str, name: str | None, members: dict[str, str], settings: dict[str, Any]
    ) -> None:
        self.created_by = actor_id
        self.kind = kind  # type: ignore[assignment]  # stored by this class only
        self.name = name
        self.settings = Settings(**settings)
        self.members = {user_id: Member(role, 1) for user_id, role in members.items()}  # type: ignore[arg-type]
        self.last_seq = 0
        self.last_message_id = 0
        self._receipts: dict[tuple[str, str], Receipt] = {}
        self._forgotten_version = 0  # of the newest message whose receipt is gone
        self._forgotten = SeenFilter()

    # -- decisions ------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        conversation_id: int,
        *,
        actor_id: str,
        kind: Kind,
        members: list[str],
        name: str | None,
        settings: dict[str, Any],
        now: datetime,
    ) -> Self:
        """A new conversation. The creator owns it and is a member, named or not; a direct one has no owner.

        Raises:
            Invalid: the wrong number of members, a name on a direct conversation, a bad setting.
        """
        everyone = dict.fromkeys([actor_id, *(check_user_id(user, field="members") for user in members)])
        if kind == "direct":
            if len(everyone) != 2:
                raise Invalid("a direct conversation has two members: you and one other", field="members")
            if name is not None:
                raise Invalid("a direct conversation has no name of its own", field="name")
            if settings:
                raise Invalid("a direct conversation has no settings", field="settings")
        if len(everyone) > min(MEMBERS_MAX[kind], MEMBERS_PER_COMMAND_MAX):
            raise Invalid(
                f"at most {MEMBERS_PER_COMMAND_MAX:,} members in one call; add the rest later",
                field="members",
            )
        owner: Role = "member" if kind == "direct" else "owner"
        return cls._create(
            events.ConversationCreated,
            id=str(conversation_id),
            timestamp=now,
            actor_id=actor_id,
            kind=kind,
            name=checked_name(name, max_chars=NAME_MAX),
            members={user_id: owner if user_id == actor_id else "member" for user_id in everyone},
            settings=default_settings(kind).changed(settings).as_dict(),
        )

    def update(self, *, actor_id: str, name: str | None, settings: dict[str, Any], now: datetime) -> None:
        """Rename, or change settings; `None` and `{}` leave them as they are. No event when nothing changes.

        Raises:
            NotFound: the actor is not a member. Forbidden: not an owner or admin, or a direct conversation.
            Invalid: a bad name or setting.
        """
        role = self._member(actor_id).role
        if self.kind == "direct":
            raise Forbidden("a direct conversation has neither name nor settings")
        if role == "member":
            raise Forbidden("only the owner and admins may change a conversation")
        new_name = self.name if name is None else checked_name(name, max_chars=NAME_MAX)
        new_settings = self.settings.changed(settings)
        if (new_name, new_settings) != (self.name, self.settings):
            self._trigger(events.ConversationUpdated, actor_id, now, name=new_name, settings=new_settings.as_dict())

    def change_members(
        self, *, actor_id: str, add: list[str], remove: list[str], roles: dict[str, Role], now: datetime
    ) -> None:
        """Add, remove and promote, all or nothing. What is already so makes no event.

        Anybody may remove themselves; when the owner leaves, the longest-standing admin (else member) owns it.

        Raises:
            NotFound: the actor is not a member. Forbidden: not theirs to do.
            Invalid: too many at once or in all, a bad user id or role.
        """
        actor = self._member(actor_id)
        inherits = actor.role == "owner" and actor_id in remove  # one more event: the heir's
        if len(add) + len(remove) + len(roles) + inherits > MEMBERS_PER_COMMAND_MAX:
            raise Invalid(f"at most {MEMBERS_PER_COMMAND_MAX:,} changes of members in one call", field="add")
        if self.kind == "direct":
            raise Forbidden("the two members of a direct conversation are fixed")
        both = set(add) & set(remove)
        if both:
            raise Invalid("a user cannot be added and removed in one call", field="remove")
        added = [user for user in dict.fromkeys(add) if check_user_id(user, field="add") not in self.members]
        removed = [user for user in dict.fromkeys(remove) if check_user_id(user, field="remove") in self.members]
        if len(self.members) + len(added) > MEMBERS_MAX[self.kind]:
            raise Invalid(f"a {self.kind} has at most {MEMBERS_MAX[self.kind]:,} members", field="add")
        self._check_may_change(actor_id, actor.role, added, removed, roles)

        for user_id in added:
            self._trigger(
                events.MemberAdded,
                actor_id,
                now,
                user_id=user_id,
                role="member",
                joined_seq=self.last_seq + 1,
            )
        for user_id, role in roles.items():
            if self.members[user_id].role != role:
                self._trigger(events.MemberUpdated, actor_id, now, user_id=user_id, role=role)
        for user_id in removed:
            was_owner = self.members[user_id].role == "owner"
            self._trigger(events.MemberRemoved, actor_id, now, user_id=user_id)
            if was_owner and (heir := self._heir()):
                self._trigger(events.MemberUpdated, actor_id, now, user_id=heir, role="owner")

    def post_message(
        self,
        *,
        actor_id: str,
        client_msg_id: str,
        text: str,
        reply_to: int | None,
        mentions: list[str],
        new_id: Callable[[], int],
        now: datetime,
        blocked: bool = False,
        looked_up: Receipt | None = None,
        was_looked_up: bool = False,
    ) -> tuple[Receipt, bool]:
        """Post a text message, once for each (sender, `client_msg_id`) however often it is asked.

        Args:
            new_id: makes the message's id; called only when there is a new message.
            blocked: whether one of the two of a direct conversation blocked the other.
            looked_up: the receipt found for an earlier `ReceiptUnknown`, `None` if there was none.
            was_looked_up: whether that look-up was done.

        Returns:
            The receipt, and whether it is an earlier message's (a duplicate).

        Raises:
            ReceiptUnknown: look it up and ask again.
            NotFound: not a member. Forbidden: may not post here. Conflict: the id was used for another message.
            Invalid: a bad text, mention, `client_msg_id` or `reply_to`.
        """
        role = self._member(actor_id).role
        check_client_msg_id(client_msg_id)
        body = {"type": "text", "text": normalised_text(text)}
        mentions = checked_mentions(mentions)
        digest = content_digest(body, reply_to, mentions)

        receipt = self._receipts.get((actor_id, client_msg_id)) or looked_up
        if receipt is None and not was_looked_up and self._forgotten.may_contain(actor_id, client_msg_id):
            raise ReceiptUnknown(actor_id, client_msg_id, self._forgotten_version)
        if receipt is not None:
            if receipt.digest != digest:
                raise Conflict("this client_msg_id was used for another message", field="client_msg_id")
            return receipt, True

        if blocked:
            # After the receipts: what was acked before the block stays acked, however often it is asked.
            raise Forbidden(BLOCKED)
        if not allows(self.settings.post, role):
            raise Forbidden(f"only the owner and admins may post in this {self.kind}")
        if reply_to is not None and (reply_to > self.last_message_id or slot_of(reply_to) != slot_of(int(self.id))):
            raise Invalid("there is no such message in this conversation", field="reply_to")
        self._trigger(
            events.MessagePosted,
            actor_id,
            now,
            seq=self.last_seq + 1,
            message_id=new_id(),
            client_msg_id=client_msg_id,
            body=body,
            reply_to=reply_to,
            mentions=mentions,
        )
        return self._receipts[actor_id, client_msg_id], False

    # -- folding --------------------------------------------------------------------------------------------

    def fold(self, event: events.Event) -> None:
        """Take an event into the state. Total: an event that was once decided always folds."""
        match event:
            case events.MessagePosted():
                self._fold_message(event)
            case events.MemberAdded():
                self.members[event.user_id] = Member(event.role, event.joined_seq)  # type: ignore[arg-type]
            case events.MemberRemoved():
                self.members.pop(event.user_id, None)
            case events.MemberUpdated():
                self.members[event.user_id].role = event.role  # type: ignore[assignment]
            case events.ConversationUpdated():
                self.name = event.name
                self.settings = Settings(**event.settings)
            case _:
                pass

    def _fold_message(self, event: events.MessagePosted) -> None:
        self.last_seq = event.seq
        self.last_message_id = event.message_id
        if len(self._receipts) == RECEIPTS_MAX:
            oldest = next(iter(self._receipts))
            self._forgotten_version = self._receipts.pop(oldest).version
            self._forgotten.add(*oldest)
        self._receipts[event.actor_id, event.client_msg_id] = Receipt.of(event)

    # -- snapshots ------------------------------------------------------------------------------------------

    SNAPSHOT_SCHEMA = 1  # a snapshot of another schema is ignored, and the log replayed

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, in MessagePack's types."""
        return {
            "id": self.id,
            "version": self.version,
            "created_on": self.created_on,
            "modified_on": self.modified_on,
            "created_by": self.created_by,
            "kind": self.kind,
            "name": self.name,
            "settings": self.settings.as_dict(),
            "members": [(user_id, member.role, member.joined_seq) for user_id, member in self.members.items()],
            "last_seq": self.last_seq,
            "last_message_id": self.last_message_id,
            "forgotten_version": self._forgotten_version,
            "receipts": [
                (*key, r.message_id, r.seq, r.version, r.created_at, r.digest) for key, r in self._receipts.items()
            ],
            "forgotten": self._forgotten.state(),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The aggregate that `state` was taken of."""
        self = cls.__new__(cls)
        self.__base_init__(state["id"], state["version"], state["created_on"].astimezone(UTC))
        self.__init__(state["created_by"], state["kind"], state["name"], {}, state["settings"])  # type: ignore[misc]
        self.modified_on = state["modified_on"].astimezone(UTC)
        self.members = {user_id: Member(role, joined_seq) for user_id, role, joined_seq in state["members"]}
        self.last_seq = state["last_seq"]
        self.last_message_id = state["last_message_id"]
        self._forgotten_version = state["forgotten_version"]
        self._receipts = {
            (sender_id, client_msg_id): Receipt(message_id, seq, version, created_at.astimezone(UTC), digest)
            for sender_id, client_msg_id, message_id, seq, version, created_at, digest in state["receipts"]
        }
        self._forgotten = SeenFilter.restore(*state["forgotten"])
        return self

    @property
    def size_bytes(self) -> int:
        """About how much memory this aggregate holds."""
        return 2_000 + 200 * len(self.members) + 500 * len(self._receipts) + self._forgotten.size_bytes

    # -- rules ----------------------------------------------------------------------------------------------

    def _member(self, user_id: str) -> Member:
        try:
            return self.members[user_id]
        except KeyError:
            # Not "forbidden": who is not in a conversation may not know that it is there.
            raise NotFound("there is no such conversation") from None

    def _check_may_change(
        self, actor_id: str, role: Role, added: list[str], removed: list[str], roles: dict[str, Role]
    ) -> None:
        others = [user_id for user_id in removed if user_id != actor_id]
        if (added or others) and not allows(self.settings.invite, role):
            raise Forbidden("only the owner and admins may add or remove members here")
        for user_id in others:
            if not outranks(role, self.members[user_id].role):
                raise Forbidden(f"{user_id} cannot be removed by a {role}", field="remove")
        for user_id, new_role in roles.items():
            if new_role not in ROLES or new_role == "owner":
                raise Invalid("a role is admin or member", field=f"roles.{user_id}")
            if user_id not in self.members or user_id in removed:
                raise Invalid("not a member of this conversation", field=f"roles.{user_id}")
            if role != "owner" or user_id == actor_id:
                raise Forbidden("only the owner gives roles, and not to themselves", field="roles")

    def _heir(self) -> str | None:
        by_role = {member.role: user_id for user_id, member in reversed(self.members.items())}
        return by_role.get("admin") or by_role.get("member")


register_topic(Conversation.TOPIC, Conversation)
