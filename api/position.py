"""How far a session has been pushed to, as a cursor from which it can be resumed without a loss or a double.

Pushes of different conversations do not come in the order of the log, so a position of the log alone would not do. A
base says up to where the audit has shown everything to be pushed; what was pushed since is told conversation by
conversation (`Cursor.ahead`), and becomes part of the base with the next audit.
"""

from itertools import islice

from streams.cursor import AHEAD_MAX, Cursor


class Position:
    """Of one session.

    Args:
        key: the deployment's secret for cursors.
        base: everything up to here is pushed, or waits in the session to be written.

    Attributes:
        told: whether the client was told the newest cursor.
    """

    __slots__ = ("_ahead", "_base", "_key", "_marked", "_user_id", "told")

    def __init__(self, key: bytes, user_id: str, base: Cursor) -> None:
        self._key = key
        self._user_id = user_id
        self._base = Cursor(base.positions, base.own)
        self._ahead: dict[int, int] = dict(base.ahead)
        self._marked: dict[int, int] = {}  # of those, what was pushed before the audit that is under way
        self.told = True

    def covers(self, partition: int, sequence: int) -> bool:
        """Whether an event of a partition of conversations is among what was pushed or passed over for good."""
        return self._base.positions[partition] >= sequence

    def newest(self, conversation_id: int) -> int:
        """The version up to which a conversation was pushed since the base; 0 if nothing of it was."""
        return self._ahead.get(conversation_id, 0)

    def pushed(self, conversation_id: int, version: int) -> None:
        """An event of a conversation was pushed; those before it were, too."""
        self._ahead[conversation_id] = version
        self.told = False

    def pushed_own(self, sequence: int) -> None:
        """One of the user's own events was pushed; those before it were, too."""
        if sequence > self._base.own:
            self._base = Cursor(self._base.positions, sequence)
            self.told = False

    def mark(self) -> None:
        """An audit begins: what was pushed before now is in the log by now, and will be covered by the base it finds.

        What is pushed while it looks may be stored after that base, also where the audit saw no event.
        """
        self._marked = dict(self._ahead) if self._ahead else {}

    def advance(self, base: Cursor) -> None:
        """Everything up to a new base is pushed, and the base has what was pushed before the last `mark`."""
        held = self._base
        if any(new < old for new, old in zip(base.positions, held.positions, strict=True)):
            return  # the session began after what was looked at
        self.told = self.told and base.positions == held.positions
        self._base = Cursor(base.positions, max(base.own, held.own))
        marked, self._marked = self._marked, {}
        self._ahead = {id_: version for id_, version in self._ahead.items() if version > marked.get(id_, 0)}

    def stand(self, at: Cursor) -> None:
        """All that was pushed is told by a cursor."""
        self._base = Cursor(at.positions, at.own)
        self._ahead = dict(at.ahead)
        self._marked = {}

    def token(self) -> str:
        """The cursor, as the client is given it. One that is ahead in very many conversations says so of the newest
        only: resumed, it is pushed some events again, which versions tell."""
        ahead = self._ahead
        if len(ahead) > AHEAD_MAX:
            ahead = dict(islice(ahead.items(), len(ahead) - AHEAD_MAX, None))
        return Cursor(self._base.positions, self._base.own, ahead).encode(self._key, self._user_id)
