"""What comes from the server, cut into messages: nats-py's parser for everything but messages, which are the hot path.

nats-py matches each message with two regular expressions in a buffer that it shortens message by message. Here a read
is gone through once, where it lies. Measured, hot and alone, a delivery with 4 headers: 3.2 µs before, 1.6 µs so.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

# Subscription, subject, reply, data, header block.
Dispatch: TypeAlias = Callable[[int, bytes, bytes, bytes, bytes], None]

_MESSAGES: Final = frozenset((b"MSG", b"HMSG"))
LINE_MAX: Final = 64 * 1024  # bytes of what is no message; `INFO` of a large cluster has a few thousand


class WireParser(Parser):
    """In place of nats-py's own parser of a client.

    Args:
        dispatch: called for each message, in order. Must not raise.
    """

    def __init__(self, client: Client, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._resets = 0
        super().__init__(client)

    def reset(self) -> None:
        """See `Parser.reset`: forget what has not come whole."""
        super().reset()
        self._resets += 1
        self._parts: list[bytes] = []
        self._held = 0  # bytes in them
        self._awaited = 0  # bytes from their beginning on, before which there is nothing to do

    async def parse(self, data: bytes = b"") -> None:
        """Take a read: every message that is whole now is dispatched.

        Raises:
            nats.errors.ProtocolError: it is not the protocol.
        """
        if self._parts:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._awaited:
                return
            data = b"".join(self._parts)
        at, size = 0, len(data)
        self._awaited, resets = 0, self._resets
        find, dispatch = data.find, self._dispatch
        while (line_end := find(b"\r\n", at)) >= 0:
            fields = data[at:line_end].split()
            verb = fields[0] if fields else b""
            if verb not in _MESSAGES:
                line_end += 2
                await super().parse(data[at:line_end])
                if self._resets != resets:
                    return  # the connection is lost, and what follows was of it
                if self.buf:  # it waits for more of what has ended
                    raise ProtocolError("nats: unknown protocol")
                at = line_end
                continue
            body = line_end + 2
            try:
                end = body + int(fields[-1])
                headers_end = body + int(fields[-2]) if verb == b"HMSG" else body
                count = len(fields) - (verb == b"HMSG")
                sid = int(fields[2])
            except (ValueError, IndexError):
                raise ProtocolError("nats: malformed MSG") from None
            if not (4 <= count <= 5 and body <= headers_end <= end):
                raise ProtocolError("nats: malformed MSG")
            if end + 2 > size:
                self._awaited = end + 2 - at
                break
            dispatch(sid, fields[1], fields[3] if count == 5 else b"", data[headers_end:end], data[body:headers_end])
            at = end + 2
        rest = data[at:]
        if not self._awaited and len(rest) > LINE_MAX:
            raise ProtocolError("nats: a line without an end")
        self._parts, self._held = ([rest], len(rest)) if rest else ([], 0)
