"""The reference client's memory: what it was given, and the inbox that follows from it by the client rule.

An entry is a function of the events of its conversation, from the first on, and of what is the user's own: marker and
own settings. So what a client has is simply the set of events it was given; how it came by them does not matter.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

NO_SETTINGS: Json = {"muted_until": None, "pinned": False, "hidden": False}


@dataclass
class Stay:
    """Where the user stands in a conversation after some of its events."""

    member: bool = False
    joined_seq: int = 0
    posted_seq: int = 0  # by the user, since they came


@dataclass
class ClientState:
    """What one client of a user has.

    Attributes:
        events: by conversation and version.
        given: the versions among them that the server gave by itself, or pointed at.
        markers: how far the user has read, as own events said.
        floors: the same, as entries said.
        doubles, late: events that came again, and those that came after a later one of their conversation.
        types: of all events that were given.
        devices: of those that are revoked no more than when: they may have been registered anew before that, and who
            was away is told of the last.
    """

    user_id: str
    events: dict[str, dict[int, Json]] = field(default_factory=dict)
    given: dict[str, list[int]] = field(default_factory=dict)
    markers: dict[str, int] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    own_settings: dict[str, Json] = field(default_factory=dict)
    profile: Json = field(default_factory=lambda: {"display_name": None, "avatar_url": None, "attributes": {}})
    devices: dict[str, Json] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    doubles: list[Json] = field(default_factory=list)
    late: list[Json] = field(default_factory=list)
    types: set[str] = field(default_factory=set)

    # -- what is given --------------------------------------------------------------------------------------

    def take(self, event: Json) -> None:
        """An event, pushed or synced."""
        self.types.add(event["type"])
        if "version" not in event:
            self._take_own(event)
            return
        conversation_id, version = event["conversation_id"], event["version"]
        had = self.events.setdefault(conversation_id, {})
        if version in had:
            assert had[version] == event
            self.doubles.append(event)
            return
        if had and version < max(had):
            self.late.append(event)
        had[version] = event
        self.given.setdefault(conversation_id, []).append(version)

    def fill(self, event: Json, *, told: bool = False) -> None:
        """An event that the client asked for itself. `told`: because the server said that it was there."""
        had = self.events.setdefault(event["conversation_id"], {})
        assert had.setdefault(event["version"], event) == event
        if told:
            self.given.setdefault(event["conversation_id"], []).append(event["version"])

    def _take_own(self, event: Json) -> None:
        conversation_id, data = event.get("conversation_id", ""), event["data"]
        match event["type"]:
            case "read.moved":
                self.markers[conversation_id] = max(data["seq"], self.markers.get(conversation_id, 0))
            case "settings.updated":
                self.own_settings[conversation_id] = data
            case "profile.updated":
                self.profile = data
            case "device.registered":
                self.devices[data["device_id"]] = {"kind": data["kind"], "registered_at": event["occurred_at"]}
            case "device.revoked":
                self.devices[data["device_id"]] = {"revoked_at": event["occurred_at"]}
            case "user.blocked":
                self.blocks[data["user_id"]] = event["occurred_at"]
            case "user.unblocked":
                self.blocks.pop(data["user_id"], None)
            case unknown:
                raise AssertionError(f"an own event of a type nobody knows: {unknown}")

    def take_own_part(self, entry: Json) -> None:
        """What an entry, pulled, says of the user's own."""
        conversation_id = entry["conversation_id"]
        self.floors[conversation_id] = entry["read_seq"]
        self.own_settings[conversation_id] = {name: entry[name] for name in NO_SETTINGS}

    # -- what follows from it -------------------------------------------------------------------------------

    def missing(self) -> dict[str, list[int]]:
        """The versions that a client lacks of conversations it is in: those of a time when it was not."""
        lacking = {}
        for conversation_id, had in self.events.items():
            if self._stay(had).member and (versions := sorted({*range(1, max(had))} - had.keys())):
                lacking[conversation_id] = versions
        return lacking

    def inbox(self) -> dict[str, Json]:
        """The entries, by conversation; what is missing must be filled before."""
        entries = {id_: self._entry(id_, had) for id_, had in self.events.items() if self._stay(had).member}
        return {id_: entry for id_, entry in entries.items() if entry is not None}

    def _stay(self, had: dict[int, Json]) -> Stay:
        stay = Stay()
        for version in sorted(had):
            event = had[version]
            data = event["data"]
            match event["type"]:
                case "conversation.created":
                    stay = Stay(any(member["user_id"] == self.user_id for member in data["members"]), 1)
                case "member.added" if data["user_id"] == self.user_id:
                    stay = Stay(True, data["joined_seq"])
                case "member.removed" if data["user_id"] == self.user_id:
                    stay = Stay()
                case "message.posted" if data["sender_id"] == self.user_id:
                    stay.posted_seq = data["seq"]
        return stay

    def _entry(self, conversation_id: str, had: dict[int, Json]) -> Json | None:
        if 1 not in had:
            return None
        stay, created = self._stay(had), had[1]["data"]
        newest = had[max(had)]
        messages = _data_of(had, "message.posted")
        names = [created["name"], *(data["name"] for data in _data_of(had, "conversation.updated"))]
        peers = [member["user_id"] for member in created["members"] if member["user_id"] != self.user_id]
        last_seq = messages[-1]["seq"] if messages else 0
        read_seq = max(stay.posted_seq, self.markers.get(conversation_id, 0), self.floors.get(conversation_id, 0))
        settings = self.own_settings.get(conversation_id, NO_SETTINGS)
        return {
            "conversation_id": conversation_id,
            "kind": created["kind"],
            "name": names[-1],
            "peer_id": peers[0] if created["kind"] == "direct" else None,
            "version": newest["version"],
            "last_seq": last_seq,
            "joined_seq": stay.joined_seq,
            "read_seq": read_seq,
            "unread": max(0, last_seq - max(read_seq, stay.joined_seq - 1)),
            "last_message": messages[-1] if messages else None,
            "updated_at": newest["occurred_at"],
            "muted": settings["muted_until"] is not None and _moment(settings["muted_until"]) > datetime.now(UTC),
            **settings,
        }


def stays(events: list[Json], user_id: str) -> list[list[int]]:
    """The memberships of a user, by the versions of a conversation's events that have to be given to them: all of the
    time they were in it, with the events that put them in and out. The last one is empty if they are out of it."""
    found: list[list[int]] = []
    member = False
    for event in events:
        data, was_member = event["data"], member
        match event["type"]:
            case "conversation.created":
                member = any(other["user_id"] == user_id for other in data["members"])
            case "member.added" if data["user_id"] == user_id:
                member = True
            case "member.removed" if data["user_id"] == user_id:
                member = False
        if member and not was_member:
            found.append([])
        if member or was_member:
            found[-1].append(event["version"])
    return found if member else [*found, []]


def _data_of(had: dict[int, Json], type_: str) -> list[Json]:
    return [had[version]["data"] for version in sorted(had) if had[version]["type"] == type_]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def by_id(entries: Iterable[Json]) -> dict[str, Json]:
    """Entries by their conversations, each once."""
    found: dict[str, Json] = {}
    for entry in entries:
        assert entry["conversation_id"] not in found, "an entry came on two pages"
        found[entry["conversation_id"]] = entry
    return found
