"""A sender: one user with a telephone that is pushed to and posts by WebSocket, and with HTTP."""

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from runtime.client import ApiError, ClientError, HttpClient
from tests.faults.recording import DELIVERED, Delivered, Outcome, digest_of
from tests.soak.client import Client
from tests.soak.holding import Account
from tests.soak.wire import Event, Refusal

if TYPE_CHECKING:
    from tests.faults.load import Load

HTTP_TIMEOUT_S: Final = 12.0
ASKED_MAX: Final = 200  # a session may have 256 requests under way
WITHOUT_EFFECT: Final = "unsent"  # code of attempts that never left

# An answer of these codes says that the outcome is not known; `unavailable` by the protocol's own words.
UNKNOWN_CODES: Final = frozenset({"unavailable", "internal", "unknown"})


class Message(msgspec.Struct):
    """One message to be posted, until it is acked, refused or left.

    Attributes:
        left: refused, or not known and not tried again.
    """

    client_msg_id: str
    sender: "Sender"
    conversation: str
    text: str
    intended_s: float
    acked: bool = False
    left: bool = False


class Ack(msgspec.Struct):
    message_id: str
    seq: int
    version: int
    duplicate: bool = False


class Sender:
    """A user with a telephone that is pushed to and posts, and with HTTP.

    Attributes:
        client: the telephone.
    """

    def __init__(self, load: "Load", user_id: str, token: str, gateways: Sequence[str], known: dict[str, int]) -> None:
        self.user_id = user_id
        self.under_way: dict[int, tuple[Message, float]] = {}  # asked by WebSocket, by number
        self.http = [HttpClient(url, token, timeout_s=HTTP_TIMEOUT_S) for url in gateways]
        self._token = token
        self._closing: list[HttpClient] = []  # of gateways that were elsewhere
        self.client = Client(
            Account(f"{user_id}/phone", user_id), token, gateways, known, load.tally, load.draw, watcher=self
        )
        self._load = load
        self._sessions = 0
        self._numbers = itertools.count(1)

    # -- the client's watcher -------------------------------------------------------------------------------

    def delivered(self, event: Event, raw: bytes) -> None:
        """See `tests.soak.client.Watcher`."""
        line = Delivered(self.client.account.client, event.conversation_id, event.version, digest_of(raw))
        self._load.recorder.write(DELIVERED, line)

    def ended(self) -> None:
        """Nothing that is under way will be answered."""
        self.give_up("the session ended")
        self._sessions += 1

    # -- posting --------------------------------------------------------------------------------------------

    def ask(self, message: Message) -> None:
        """Try by WebSocket."""
        if not self.client.has_session or len(self.under_way) >= ASKED_MAX:
            at_s = time.monotonic()
            self._load.settle(message, "", 0, at_s, "refused", WITHOUT_EFFECT)
            return
        number, session, sent_s = next(self._numbers), f"{self.user_id}/{self._sessions}", time.monotonic()
        self.under_way[number] = (message, sent_s)

        def answered(ok: msgspec.Raw, error: msgspec.Raw) -> None:
            if self.under_way.pop(number, None) is None:
                return
            if ok:
                self._load.settle(message, session, number, sent_s, "acked", ack=_ack(ok))
            else:
                code = msgspec.json.decode(error, type=Refusal).code
                self._load.settle(message, session, number, sent_s, _outcome(code), code)

        body = {"type": "text", "text": message.text}
        parameters = {
            "conversation_id": message.conversation,
            "client_msg_id": message.client_msg_id,
            "body": body,
        }
        self.client.ask("send", parameters, answered)

    async def post(self, message: Message) -> None:
        """Try by HTTP, where nothing says in which order requests are served: each is a session of its own."""
        http, sent_s = self._load.draw.choice(self.http), time.monotonic()
        number = next(self._numbers)
        session = f"{self.user_id}/http/{number}"
        try:
            answer = await http.post(message.conversation, message.text, client_msg_id=message.client_msg_id)
        except ApiError as error:
            self._load.settle(message, session, number, sent_s, _outcome(error.code), error.code)
        except ClientError as error:
            self._load.settle(message, session, number, sent_s, "unknown", type(error).__name__)
        else:
            self._load.settle(message, session, number, sent_s, "acked", ack=msgspec.convert(answer, Ack))

    def move(self, gateways: Sequence[str]) -> None:
        """The gateways are elsewhere from now on."""
        self.client.gateways = list(gateways)
        self._closing += self.http
        self.http = [HttpClient(url, self._token, timeout_s=HTTP_TIMEOUT_S) for url in gateways]

    def give_up(self, why: str) -> None:
        """Wait for no answer any more."""
        for number, (message, sent_s) in list(self.under_way.items()):
            del self.under_way[number]
            self._load.settle(message, f"{self.user_id}/{self._sessions}", number, sent_s, "unknown", why)

    async def close(self) -> None:
        """Close its connections."""
        for http in (*self.http, *self._closing):
            await http.close()


def _outcome(code: str) -> Outcome:
    return "unknown" if code in UNKNOWN_CODES else "refused"


_ack = msgspec.json.Decoder(Ack).decode
