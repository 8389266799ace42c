"""A small asyncio client of the public protocol: what the importer, the load generator, the tests and examples use.

It knows URLs, tokens and the protocol, and nothing of the server's insides.
"""

from runtime.client.errors import ApiError, ClientError, ConnectionLost, SessionClosed
from runtime.client.http import HttpClient
from runtime.client.retry import Retry
from runtime.client.websocket import SUBPROTOCOL, WebSocketClient

__all__ = [
    "SUBPROTOCOL",
    "ApiError",
    "ClientError",
    "ConnectionLost",
    "HttpClient",
    "Retry",
    "SessionClosed",
    "WebSocketClient",
]
