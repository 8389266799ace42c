"""Recorders of the `eventsourcing` library over JetStream: `PERSISTENCE_MODULE=streams.recorders`.

Any application written with the library stores its events in a stream of its own in the form that Riverrun's events
have: one subject an aggregate, topic and version in headers, the state as the body. So the same recorder, read-only,
follows Riverrun's streams (`CONV-0`). See `docs/interop.md`.

The library finds the one factory in this module.
"""

from streams.recorders.factory import Factory

__all__ = ["Factory"]
