"""How an event reaches the members of a conversation, decided by how many they are.

Up to a limit it is addressed to each member (write fan-out): a publish a member, and no subscription of the gateways'
beyond the one they have for each user. Above it, it is addressed to the conversation (read fan-out): one publish, which
the log makes by itself, and a subscription of every gateway that has a member.

Both are decided by the number of members right after the event. They overlap just below the limit, so that whichever
way a conversation crosses it, the new way stands before the old one ends; what comes twice has the same version.
"""

from typing import Final

OVERLAP: Final = 5  # the last fifth below the limit: a few joins between listening to a conversation and needing it
SIGNAL_MEMBERS_MAX: Final = 100  # from here on nobody is told who types or has read: it would cost members squared


def writes(member_count: int, limit: int) -> bool:
    """Whether an event is addressed to each member."""
    return member_count <= limit


def reads(member_count: int, limit: int) -> bool:
    """Whether gateways listen to the conversation itself. Where nothing is written, they do."""
    return member_count * OVERLAP > limit * (OVERLAP - 1)


def signals(member_count: int) -> bool:
    """Whether members are told who types and how far others have read."""
    return member_count < SIGNAL_MEMBERS_MAX
