"""Queries about users: who sees what of whom."""

import asyncio

import pytest
from psycopg_pool import AsyncConnectionPool

from domain.errors import NotFound, Unavailable
from projections.pages import Block, Device, Profile, ReadReceipt, Standing
from projections.people import UserQueries
from streams.public import rfc3339
from tests.projections.models import Models


@pytest.fixture
def people(pool: AsyncConnectionPool) -> UserQueries:
    return UserQueries(pool)


async def test_who_shares_a_conversation_sees_a_profile(pool: AsyncConnectionPool, people: UserQueries) -> None:
    models = await Models(pool).open()
    await models.create("ann", "bob")
    await models.set_profile("ann", "Ann", mood="fine")
    ann = Profile("ann", "Ann", None, {"mood": "fine"})
    assert await people.profile("ann", "ann") == ann
    assert await people.profile("bob", "ann") == ann
    assert await people.profile("ann", "bob") == Profile("bob")
    assert await people.profile("eve", "eve") == Profile("eve")


async def test_to_strangers_a_user_is_as_unknown_as_nobody(pool: AsyncConnectionPool, people: UserQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    await models.set_profile("ann", "Ann")
    await models.remove(id_, "bob")
    told = set()
    for viewer, user in (("eve", "ann"), ("eve", "nobody"), ("bob", "ann")):
        with pytest.raises(NotFound) as refused:
            await people.profile(viewer, user)
        told.add(refused.value.detail)
    assert len(told) == 1


async def test_devices_are_known_to_be_revoked(pool: AsyncConnectionPool, people: UserQueries) -> None:
    models = await Models(pool).open()
    await models.register("ann", "phone", "mobile")
    registered = rfc3339(models.now)
    await models.register("ann", "desk", "desktop")
    await models.revoke("ann", "phone")
    phone = Device("phone", "mobile", registered, rfc3339(models.now), revoked=True)
    assert [device.device_id for device in await people.devices("ann")] == ["desk", "phone"]
    assert await people.device("ann", "phone") == phone
    assert await people.device("ann", "other") is None
    assert await people.device("bob", "phone") is None


async def test_blocks_are_told_to_who_blocked(pool: AsyncConnectionPool, people: UserQueries) -> None:
    models = await Models(pool).open()
    await models.block("ann", "eve")
    assert await people.blocks("ann") == [Block("eve", rfc3339(models.now))]
    assert await people.blocks("eve") == []


async def test_read_receipts_count_markers_and_posts(pool: AsyncConnectionPool, people: UserQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob", "cid", "dan")
    for user in ("ann", "bob", "ann"):
        await models.post(id_, user)
    await models.read("ann", id_, 1)
    await models.read("cid", id_, 3)
    read_at = rfc3339(models.now)
    page = await people.read_receipts(id_, "dan", after=None, limit=3)
    assert page.receipts == [
        ReadReceipt("ann", 3, None),
        ReadReceipt("bob", 2, None),
        ReadReceipt("cid", 3, read_at),
    ]
    assert page.has_more
    rest = await people.read_receipts(id_, "dan", after="cid", limit=3)
    assert (rest.receipts, rest.has_more) == ([ReadReceipt("dan", 0, None)], False)
    assert (await people.read_receipts(id_, "dan", after="dan", limit=3)).receipts == []


async def test_read_receipts_are_for_members(pool: AsyncConnectionPool, people: UserQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    for conversation in (id_, id_ + 1):
        with pytest.raises(NotFound):
            await people.read_receipts(conversation, "eve", after=None, limit=3)
        with pytest.raises(NotFound):
            await people.standing(conversation, "eve")


async def test_read_receipts_wait_for_a_version(pool: AsyncConnectionPool) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    with pytest.raises(Unavailable):
        await UserQueries(pool, wait_s=0.05).read_receipts(id_, "ann", after=None, limit=3, min_version=2)
    waiting = asyncio.create_task(
        UserQueries(pool, wait_s=5).read_receipts(id_, "ann", after=None, limit=3, min_version=2)
    )
    await models.post(id_, "ann")
    assert (await waiting).receipts[0] == ReadReceipt("ann", 1, None)


async def test_acquaintances_share_a_conversation_and_do_not_block(
    pool: AsyncConnectionPool, people: UserQueries
) -> None:
    models = await Models(pool).open()
    await models.create("ann", "bob", "cid")
    await models.create("ann", "dan", kind="direct")
    await models.create("eve", "bob")
    await models.block("cid", "ann")
    await models.block("ann", "dan")
    others = ["bob", "cid", "dan", "eve", "nobody"]
    assert await people.acquainted("ann", others) == {"bob", "dan"}
    assert await people.acquainted("cid", ["ann"]) == {"ann"}
    assert await people.acquainted("ann", []) == set()


async def test_a_standing_says_what_a_marker_is_checked_against(pool: AsyncConnectionPool, people: UserQueries) -> None:
    models = await Models(pool).open()
    id_ = await models.create("ann", "bob")
    await models.post(id_, "ann")
    await models.add(id_, "cid")
    await models.post(id_, "ann")
    assert await people.standing(id_, "cid") == Standing("group", 2, 2, 0, 3)
