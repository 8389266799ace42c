"""Making the server's streams agree with the topology. Refuses to touch a deployment of another partition count."""

from typing import Any

from streams import subjects
from streams.jetstream.api import STREAM_DIFFERS, ApiError, call
from streams.jetstream.connection import Connection
from streams.topology import StreamSpec, Topology, TopologyMismatch

PARTITIONS = "riverrun.partitions"
SERVER_METADATA = "_nats."  # keys that the server adds


async def ensure(connection: Connection, topology: Topology) -> None:
    """See `streams.ports.Log.ensure`. Several processes may do it at once."""
    found = await _streams(connection)
    check_partitions(topology, found)
    for spec in topology.streams():
        wanted = config_of(spec, topology.replicas)
        if spec.name not in found:
            try:
                await call(connection, f"STREAM.CREATE.{spec.name}", wanted)
            except ApiError as error:
                if error.err_code != STREAM_DIFFERS:
                    raise
                # Another process was faster, perhaps with another topology. The first stream decides who goes on.
                found = await _streams(connection)
                check_partitions(topology, found)
        config = found.get(spec.name)
        if config is not None and not _agrees(config, wanted):
            await call(connection, f"STREAM.UPDATE.{spec.name}", {**config, **wanted})


def check_partitions(topology: Topology, found: dict[str, dict[str, Any]]) -> None:
    """Raises TopologyMismatch when a stream of conversations was made for another number of partitions."""
    for name, config in sorted(found.items()):
        recorded = config.get("metadata", {}).get(PARTITIONS)
        if name.startswith(f"{subjects.CONV.upper()}-") and recorded != str(topology.partitions):
            raise TopologyMismatch(
                f"the log was made with {recorded or 'an unrecorded number of'} partitions (stream {name}) and this "
                f"start asks for {topology.partitions}: start with the number it was made with, or use an empty log; "
                "the number of partitions of a deployment never changes"
            )


def config_of(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    """A stream's configuration as JetStream writes it (`Any`: its values have many shapes)."""
    config: dict[str, Any] = {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "discard": "new",  # a full stream refuses: it never forgets an event to make room
        "deny_delete": True,  # no hole by hand; trimming behind the archive is a purge
        "allow_direct": True,
        "allow_atomic": spec.atomic,
        "metadata": dict(spec.metadata),
    }
    if spec.newest_only:
        config |= {"max_msgs_per_subject": 1, "discard": "old"}
    if spec.republish is not None:
        config["republish"] = {"src": spec.republish.source, "dest": spec.republish.destination}
    return config


def _agrees(config: dict[str, Any], wanted: dict[str, Any]) -> bool:
    metadata = config.get("metadata", {}).items()
    own = {name: value for name, value in metadata if not name.startswith(SERVER_METADATA)}
    # The server leaves out what is false.
    return all((own if key == "metadata" else config.get(key, False)) == value for key, value in wanted.items())


async def _streams(connection: Connection) -> dict[str, dict[str, Any]]:
    """The configurations of all streams, by name."""
    found: dict[str, dict[str, Any]] = {}
    while True:
        answer = await call(connection, "STREAM.LIST", {"offset": len(found)})
        page = answer.get("streams") or []
        found.update({stream["config"]["name"]: stream["config"] for stream in page})
        if not page or len(found) >= answer["total"]:
            return found
