"""Devices: known from their first session on, listed, revoked. Revoking closes the device's sessions at once."""

from api import operations
from api.auth import Principal
from api.context import ApiContext
from api.endpoint import Answer, Call, Endpoint
from api.schema import Devices
from api.sessions import DeviceInfo
from commands.users import DeviceResult, RegisterDevice, RevokeDevice
from domain.devices import check_device
from projections.pages import Device


async def enter(context: ApiContext, principal: Principal, device: DeviceInfo) -> None:
    """Let a device in: register it if it is new; a known one costs a read and no write.

    Raises:
        Revoked: and the token is not newer than that. Invalid: no such kind or id, or too many devices. Unavailable.
    """
    if device.id is None:
        return
    check_device(device.id, device.kind)
    known = await context.users.device(principal.user_id, device.id)
    if known is not None and known.revoked_at is None:
        return  # of one that was ever revoked, its user's writer looks at the token
    issued_at = principal.issued_at
    command = RegisterDevice(
        actor_id=principal.user_id,
        device_id=device.id,
        kind=device.kind,
        token_issued_at_ms=None if issued_at is None else int(issued_at * 1000),
    )
    await operations.decide(context, command, DeviceResult)


async def devices(call: Call[None, None]) -> Answer:
    await operations.settled(call.context)
    return Answer(Devices(await call.context.users.devices(call.principal.user_id)))


async def revoke_device(call: Call[None, None]) -> Answer:
    command = RevokeDevice(
        actor_id=call.principal.user_id,
        device_id=call.path["device_id"],
        correlation_id=call.correlation_id,
        trace=call.trace,
    )
    result = await operations.decide(call.context, command, DeviceResult)
    return Answer(Device(result.device_id, result.kind, result.registered_at, result.revoked_at, revoked=True))


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/devices",
        devices,
        "One's own devices.",
        {200: (Devices, "All that are remembered.")},
    ),
    Endpoint(
        "DELETE",
        "/v1/devices/{device_id}",
        revoke_device,
        "Revoke a device: its sessions end at once, and tokens issued up to now open none for it.",
        {200: (Device, "As it is now.")},
        errors=("not_found",),
    ),
)
