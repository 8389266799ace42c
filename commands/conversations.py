"""Commands that make and change conversations."""

from commands.command import Command, Deciding, Result
from domain.conversations import BLOCKED, Conversation
from domain.errors import Forbidden, Invalid
from domain.ids import ReservationKey, check_user_id, creation_key, direct_key, pair_key, slot_of
from domain.members import Kind, Role
from domain.messages import check_client_msg_id
from domain.reservations import Reservation
from streams.public import ConversationView, view_of


class ConversationResult(Result, frozen=True, kw_only=True):
    """`created` is false when the command found what it would have made."""

    conversation: ConversationView
    created: bool = False


class CreateConversation(Command, frozen=True, kw_only=True):
    """Open a conversation; for a direct pair, or a repeated `client_conversation_id`, find the one there is.

    Attributes:
        placement: any slot, 0…1023, drawn at random by whoever makes the command; used when the
            conversation may be placed anywhere.
        client_conversation_id: the creator's own id; the same again answers the same conversation.
    """

    kind: Kind
    members: list[str]
    placement: int
    name: str | None = None
    settings: dict[str, str] = {}
    client_conversation_id: str | None = None

    @property
    def key(self) -> ReservationKey | None:
        """What this creation reserves.

        Raises:
            Invalid: a member or the client's id is malformed, or a direct conversation has not two members.
        """
        if self.kind == "direct":
            others = [user for user in dict.fromkeys(self.members) if user != self.actor_id]
            if len(others) != 1:
                raise Invalid("a direct conversation has two members: you and one other", field="members")
            return direct_key(self.actor_id, check_user_id(others[0], field="members"))
        if self.client_conversation_id is not None:
            check_client_msg_id(self.client_conversation_id, field="client_conversation_id")
            return creation_key(self.actor_id, self.client_conversation_id)
        return None

    @property
    def slot(self) -> int:
        return self.key.slot if self.key else self.placement

    @property
    def lane(self) -> str:
        return self.key.value if self.key else f"new.{id(self)}"

    @property
    def repeatable(self) -> bool:
        return self.key is not None


class UpdateConversation(Command, frozen=True, kw_only=True):
    """Rename a conversation or change its settings; what is not given stays."""

    conversation_id: int
    name: str | None = None
    settings: dict[str, str] = {}

    @property
    def slot(self) -> int:
        return slot_of(self.conversation_id)

    @property
    def lane(self) -> str:
        return str(self.conversation_id)


class ChangeMembers(Command, frozen=True, kw_only=True):
    """Add and remove members and give roles, all or nothing."""

    conversation_id: int
    add: list[str] = []
    remove: list[str] = []
    roles: dict[str, Role] = {}

    @property
    def slot(self) -> int:
        return slot_of(self.conversation_id)

    @property
    def lane(self) -> str:
        return str(self.conversation_id)


def create_conversation(command: CreateConversation, deciding: Deciding) -> ConversationResult:
    key = command.key
    if key and (reservation := deciding.reservation(key.value)):
        existing = deciding.conversation(reservation.conversation_id)
        if command.actor_id in existing.members:
            return ConversationResult(conversation=view_of(existing))
        raise Invalid("you have left the conversation of this id", field="client_conversation_id")

    if command.kind == "direct":
        other = next(user for user in command.members if user != command.actor_id)
        pair = deciding.pair(pair_key(command.actor_id, other).value)
        if pair is not None and pair.blocks:
            raise Forbidden(BLOCKED)
    conversation = Conversation.create(
        deciding.new_id(command.slot),
        actor_id=command.actor_id,
        kind=command.kind,
        members=command.members,
        name=command.name,
        settings=dict(command.settings),
        now=deciding.now,
    )
    if key:
        reserved_for = int(conversation.id)
        deciding.add(Reservation.reserve(key.value, reserved_for, actor_id=command.actor_id, now=deciding.now))
    deciding.add(conversation)
    return ConversationResult(conversation=view_of(conversation), created=True)


def update_conversation(command: UpdateConversation, deciding: Deciding) -> ConversationResult:
    conversation = deciding.conversation(command.conversation_id)
    conversation.update(actor_id=command.actor_id, name=command.name, settings=dict(command.settings), now=deciding.now)
    return ConversationResult(conversation=view_of(conversation))


def change_members(command: ChangeMembers, deciding: Deciding) -> ConversationResult:
    conversation = deciding.conversation(command.conversation_id)
    conversation.change_members(
        actor_id=command.actor_id,
        add=command.add,
        remove=command.remove,
        roles=dict(command.roles),
        now=deciding.now,
    )
    return ConversationResult(conversation=view_of(conversation))
