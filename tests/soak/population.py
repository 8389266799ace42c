"""Who takes part in a soak, and in which conversations: drawn from a seed, so that a run can be repeated."""

import random
from typing import Final, Literal

import msgspec

LARGE: Final = (50, 500)  # members of the larger conversations
SMALL: Final = (2, 20)
LARGE_PER_CENT: Final = 8
SECOND_DEVICE_EVERY: Final = 10  # one client in so many is another device of the user before it

Size = Literal["small", "large", "largest"]


class Plan(msgspec.Struct, frozen=True):
    """How large a soak is, and how long."""

    seconds: float = 180
    clients: int = 2_000
    conversations: int = 500
    largest: int = 5_000
    seed: int = 1
    rate: float = 30
    kill_every_s: float = 20
    stay_s: float = 60
    processes: int = 2


class Seat(msgspec.Struct, frozen=True):
    """A client: one device of a user."""

    client: str
    user_id: str


class Conversation(msgspec.Struct, frozen=True):
    """One to be made. `members` are users, without the owner, who makes it and has no client."""

    size: Size
    members: list[str]


class Population(msgspec.Struct, frozen=True):
    """Everybody and everything."""

    owner: str
    seats: list[Seat]
    conversations: list[Conversation]

    @property
    def users(self) -> list[str]:
        """Those who have a client, in a fixed order."""
        return list(dict.fromkeys(seat.user_id for seat in self.seats))


def populate(plan: Plan) -> Population:
    """Draw a population."""
    draw = random.Random(plan.seed)
    seats: list[Seat] = []
    for number in range(plan.clients):
        another = number % SECOND_DEVICE_EVERY == SECOND_DEVICE_EVERY - 1
        user_id = seats[-1].user_id if another else f"soak-{number}"
        seats.append(Seat(f"{user_id}/{'tablet' if another else 'phone'}", user_id))
    users = list(dict.fromkeys(seat.user_id for seat in seats))
    absent = [f"absent-{number}" for number in range(max(0, plan.largest - 1 - len(users)))]
    conversations = [Conversation("largest", (users + absent)[: plan.largest - 1])]
    larger = max(1, plan.conversations * LARGE_PER_CENT // 100)
    for number in range(plan.conversations - 1):
        size: Size = "large" if number < larger else "small"
        least, most = LARGE if size == "large" else SMALL
        count = min(draw.randint(least, most), len(users))
        conversations.append(Conversation(size, draw.sample(users, count - 1)))
    return Population("soak-owner", seats, conversations)
