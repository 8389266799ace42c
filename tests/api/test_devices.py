"""Devices: known from their first session on, one user's own, and revoked at once."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.conftest import User, assert_problem
from tests.api.sessions import Sessions, sessions_fixture  # noqa: F401  # the fixture `sessions`
from tests.api.test_bad_cursors import stream

REVOKED = 3501
PROTOCOL_ERROR = 3502


async def _devices(user: User) -> dict[str, dict[str, Any]]:
    devices = (await user.get("/v1/devices")).json()["devices"]
    return {device["device_id"]: device for device in devices}


async def _revoke(user: User, device_id: str) -> dict[str, Any]:
    response = await user.request("DELETE", f"/v1/devices/{device_id}")
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_a_device_is_known_from_its_first_session_on(alice: User, sessions: Sessions) -> None:
    assert await _devices(alice) == {}
    await sessions.open(alice, device_id="phone", device_kind="mobile")
    await sessions.open(alice, device_id="phone", device_kind="mobile")
    await sessions.open(alice)
    async with stream(alice, {}, {"device_id": "browser", "device_kind": "web"}) as pushes:
        await anext(pushes)
        devices = await _devices(alice)
    assert {id_: (device["kind"], device["revoked"]) for id_, device in devices.items()} == {
        "phone": ("mobile", False),
        "browser": ("web", False),
    }


async def test_a_session_is_told_of_its_users_new_devices(alice: User, bob: User, sessions: Sessions) -> None:
    await alice.open_group(bob)
    desktop = await sessions.open(alice, device_id="desktop")
    others = await sessions.open(bob, device_id="desktop")
    await sessions.open(alice, device_id="phone", device_kind="mobile")
    await _revoke(alice, "phone")
    told = [("device.registered", "phone"), ("device.revoked", "phone")]

    def of_the_phone(own: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return [(event["type"], event["data"]["device_id"]) for event in own if event["data"]["device_id"] == "phone"]

    await desktop.until(lambda client: of_the_phone(client.own) == told)
    assert all(event["actor_id"] == bob.user_id for event in others.own)


async def test_revoking_closes_the_sessions_of_the_device_and_no_others(alice: User, sessions: Sessions) -> None:
    phones = [await sessions.open(alice, device_id="phone") for _ in range(2)]
    desktop, unnamed = await sessions.open(alice, device_id="desktop"), await sessions.open(alice)
    async with stream(alice, {}, {"device_id": "phone"}) as pushes:
        await anext(pushes)
        assert (await _revoke(alice, "phone"))["revoked_at"] is not None
        assert [await phone.closed() for phone in phones] == [REVOKED, REVOKED]
        pushed = [(kind, data) async for kind, data in pushes]
        assert pushed[-1][0] == "close"
        assert pushed[-1][1]["code"] == REVOKED
    for session in (desktop, unnamed):
        assert "ok" in await session.request("ping")
    assert (await _devices(alice))["phone"]["revoked"] is True


async def test_a_token_from_before_opens_no_session_for_a_revoked_device(alice: User, sessions: Sessions) -> None:
    phone = await sessions.open(alice, device_id="phone")
    first = await _revoke(alice, "phone")
    assert await phone.closed() == REVOKED
    assert await _revoke(alice, "phone") == first  # again is the same
    for _ in range(2):
        error, code = await sessions.refused(alice, device_id="phone")
        assert (error["code"], error["retryable"], code) == ("revoked", False, REVOKED)
    response = await alice.get("/v1/stream", device_id="phone")
    assert_problem(response, 403, "revoked")
    await sessions.open(alice)  # it is the device that was revoked, not the token
    await sessions.open(alice, device_id="desktop")


async def test_a_newer_token_opens_one_and_the_older_still_does_not(alice: User, sessions: Sessions) -> None:
    await sessions.open(alice, device_id="phone", device_kind="mobile")
    await _revoke(alice, "phone")
    signed_in_again = sessions.fresh_token(alice)
    phone = await sessions.open(signed_in_again, device_id="phone", device_kind="tablet")
    device = (await _devices(alice))["phone"]
    assert (device["kind"], device["revoked"]) == ("tablet", False)
    error, code = await sessions.refused(alice, device_id="phone")
    assert (error["code"], code) == ("revoked", REVOKED)
    await _revoke(alice, "phone")
    assert await phone.closed() == REVOKED
    error, code = await sessions.refused(signed_in_again, device_id="phone")
    assert (error["code"], code) == ("revoked", REVOKED)


async def test_two_users_may_have_devices_of_one_id(alice: User, bob: User, sessions: Sessions) -> None:
    hers, his = await sessions.open(alice, device_id="shared"), await sessions.open(bob, device_id="shared")
    conversation = await alice.open_group(bob)
    await _revoke(alice, "shared")
    assert await hers.closed() == REVOKED
    await alice.say(conversation, "still there?")
    await his.until(lambda client: client.versions(int(conversation)) == [1, 2])
    assert (await _devices(bob))["shared"]["revoked"] is False
    await sessions.open(bob, device_id="shared")
    assert_problem(await alice.request("DELETE", "/v1/devices/his"), 404, "not_found")


async def test_a_session_that_begins_while_its_device_is_revoked_does_not_live(alice: User, sessions: Sessions) -> None:
    """It was let in before, and is closed; or after, and is refused."""
    await sessions.open(alice, device_id="phone")
    opening = [asyncio.create_task(sessions.ask(alice, device_id="phone")) for _ in range(8)]
    await _revoke(alice, "phone")
    for opened in await asyncio.gather(*opening, return_exceptions=True):
        if isinstance(opened, BaseException):
            assert isinstance(opened, AssertionError | ConnectionClosed), opened
            continue
        client, _ = opened
        assert await client.closed() == REVOKED


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"device_id": ""}, "device_id"),
        ({"device_id": "x" * 65}, "device_id"),
        ({"device_id": "a\nb"}, "device_id"),
        ({"device_id": 7}, "device_id"),
        ({"device_kind": "fridge"}, "device_kind"),
        ({"device": "phone"}, "device"),
    ],
)
async def test_a_device_that_cannot_be_is_refused(
    alice: User, sessions: Sessions, parameters: dict[str, Any], field: str
) -> None:
    error, code = await sessions.refused(alice, **parameters)
    assert (error["code"], error.get("field"), code) == ("invalid", field, PROTOCOL_ERROR)
    if parameters != {"device_id": 7}:  # a query has no numbers, only digits
        assert_problem(await alice.get("/v1/stream", **parameters), 422, "invalid", field=field)
    assert await _devices(alice) == {}
