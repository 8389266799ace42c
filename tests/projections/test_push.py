"""What gateways read: from where on a session is pushed to, and what has moved since."""

from datetime import UTC, datetime, timedelta

import msgspec
from psycopg_pool import AsyncConnectionPool

from projections.own_events import read_own_events
from projections.pages import Membership
from projections.push import PushQueries
from projections.reading import Database
from streams.public import UserEvent, rfc3339
from tests.projections.models import Models


def push_queries(pool: AsyncConnectionPool) -> PushQueries:
    return PushQueries(Database(pool), partitions=1)


async def test_who_is_in_nothing_is_attached_to_nothing(pool: AsyncConnectionPool) -> None:
    models = await Models(pool).open()
    await models.create("bob", "cid")
    attachable = await push_queries(pool).attachable("ann")
    assert (attachable.memberships, attachable.user_version, attachable.base.positions) == ([], 0, (1,))


async def test_memberships_tell_their_version_and_how_many_members_there_are(pool: AsyncConnectionPool) -> None:
    models = await Models(pool, step=timedelta(0)).open()
    id_ = await models.create("ann", "bob", "cid")
    await models.remove(id_, "cid")
    await models.post(id_, "ann")
    await models.register("ann", "phone")
    attachable = await push_queries(pool).attachable("ann")
    assert attachable.memberships == [Membership(id_, 3, 2, 2)]
    assert attachable.user_version == 2  # that there is such a user, and the device
    # A head that is ahead of the events that can be read does not say the version.
    async with pool.connection() as connection:
        await connection.execute("UPDATE checkpoints SET sequence = 2 WHERE projection = 'messages'")
    attachable = await push_queries(pool).attachable("ann")
    assert attachable.memberships[0].version == 2
    assert attachable.base.positions == (2,)


async def test_only_what_has_moved_is_told_and_what_is_asked_for_again(pool: AsyncConnectionPool) -> None:
    models = await Models(pool).open()
    still, moved, other = [await models.create("ann", "bob") for _ in range(3)]
    await models.post(moved, "ann")
    await models.post(other, "ann")
    queries = push_queries(pool)
    positions, versions = await queries.newest_versions([still, moved], since=(3,))
    assert (positions.conversations, versions) == ((5,), {moved: 2})
    _, versions = await queries.newest_versions([still, moved], since=(3,), again=[still])
    assert versions == {still: 1, moved: 2}
    positions, versions = await queries.newest_versions([still], since=(5,))
    assert (positions.conversations, versions) == ((5,), {})


async def test_who_was_put_in_since_is_told_with_the_version_before(pool: AsyncConnectionPool) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    await models.post(id_, "ann")
    await models.add(id_, "cid")
    queries = push_queries(pool)
    assert await queries.joined(["cid", "bob", "eve"], since=(1,)) == [("cid", Membership(id_, 2, 3, 3))]
    assert await queries.joined(["cid"], since=(3,)) == []
    assert await queries.user_versions(["ann"]) == {}


async def test_own_events_are_rebuilt_from_what_stands(pool: AsyncConnectionPool) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    await models.register("ann", "phone")
    await models.set_profile("ann", "Ann", mood="fine")
    profiled_at = rfc3339(models.now)
    await models.read("ann", id_, 1)
    until = datetime(2026, 5, 1, tzinfo=UTC)
    await models.set_own("ann", id_, muted_until=until, pinned=True)
    at = rfc3339(models.now)
    await models.block("ann", "eve")
    async with Database(pool).snapshot() as snapshot:
        found = await read_own_events(snapshot, "ann", after=0)
        types = ["device.registered", "profile.updated", "read.moved", "settings.updated", "user.blocked"]
        assert [event.type for event in found] == types
        assert found[1] == UserEvent(
            type="profile.updated",
            occurred_at=profiled_at,
            actor_id="ann",
            data={"display_name": "Ann", "avatar_url": None, "attributes": {"mood": "fine"}},
        )
        assert msgspec.json.encode(found[3]) == msgspec.json.encode(
            {
                "type": "settings.updated",
                "conversation_id": str(id_),
                "occurred_at": at,
                "actor_id": "ann",
                "data": {"muted_until": "2026-05-01T00:00:00.000Z", "pinned": True, "hidden": False},
            }
        )
        assert [event.type for event in await read_own_events(snapshot, "ann", after=4)] == ["user.blocked"]
