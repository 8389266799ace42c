"""What a corpus is made of: the messages of a real chat, who wrote them, and at what times of the day."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.analytics.corpus import Written, invented, logs

DAY_MS: Final = 86_400_000
MINUTE_MS: Final = 60_000
SHARED: Final = Path(__file__).parents[3] / "shared" / "data" / "ubuntu-irc"  # beside the repository, perhaps


class Line(NamedTuple):
    """A message. `mention`: whom it is addressed to, if that is somebody else who writes here; else empty."""

    nick: str
    text: str
    mention: str


@dataclass(frozen=True, slots=True)
class Source:
    """Messages in their order, and the moments of the day at which they were written, rising, in milliseconds."""

    lines: tuple[Line, ...]
    day_ms: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path | None) -> Self:
        """IRC logs named after their days (`2005-05-19.txt`); without a folder, an invented chat.

        Raises:
            OSError: there are no logs in the folder.
        """
        if folder is None:
            return cls.made(invented(1))
        if not (written := list(logs(folder))):
            raise FileNotFoundError(f"no IRC logs in {folder}")
        return cls.made(written)

    @classmethod
    def made(cls, written: Iterable[Written]) -> Self:
        """Of messages."""
        said = list(written)
        lines = tuple(Line(one.sender, one.text, one.mention) for one in said)
        # To the minute, in the logs: those of one minute are spread over it.
        minutes = Counter((one.at.hour * 60 + one.at.minute) * MINUTE_MS for one in said)
        day_ms = [
            minute + number * MINUTE_MS // count for minute, count in sorted(minutes.items()) for number in range(count)
        ]
        return cls(lines, tuple(day_ms))

    def moment_ms(self, share: float) -> int:
        """The moment of a day by which a share of its messages, from 0 up to 1, has been written."""
        place = share * len(self.day_ms)
        number = int(place)
        begin = self.day_ms[number]
        end = self.day_ms[number + 1] if number + 1 < len(self.day_ms) else DAY_MS
        return begin + int((place - number) * (end - begin))
