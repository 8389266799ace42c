"""NATS protocol frames, written here because a batch goes out in one write.

nats-py's `publish` costs a flusher hand-over and a header loop a message; building the frames of a batch here and
writing them to the transport at once costs about a third, and nothing of an append stays behind in nats-py's
pending buffer to be sent after a reconnect.
"""

from collections.abc import Mapping

LINE_ENDS = str.maketrans({"\r": " ", "\n": " "})


def header_lines(headers: Mapping[str, str]) -> str:
    """The lines of a header block. A line end inside a value becomes a space: nobody may add a header through one."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        lines = "".join([f"{name}: {value.translate(LINE_ENDS)}\r\n" for name, value in headers.items()])
    return lines


def publication(subject: str, data: bytes, *, lines: str = "", reply: str = "") -> tuple[bytes, int]:
    """The frame that publishes a message, and the size that the server's payload limit is about.

    Args:
        lines: what `header_lines` made, one or more joined.
        reply: where an answer goes.
    """
    if not lines:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(data), data), len(data)
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    size_bytes = len(block) + len(data)
    frame = b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply.encode(), len(block), size_bytes, block, data)
    return frame, size_bytes
