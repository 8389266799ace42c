"""The HTTP endpoints of users: profiles, and whom one has blocked."""

from api import operations
from api.endpoint import Answer, Call, Endpoint
from api.schema import Blocked, Blocks, ProfileChange
from commands.users import BlockPair, BlockResult, BlockUser, ProfileResult, UnblockUser, UpdateProfile
from domain.ids import check_user_id
from projections.pages import Profile


async def profile(call: Call[None, None]) -> Answer:
    await operations.settled(call.context)
    user_id = call.principal.user_id
    return Answer(await call.context.users.profile(user_id, user_id))


async def update_profile(call: Call[None, ProfileChange]) -> Answer:
    command = UpdateProfile(
        actor_id=call.principal.user_id,
        display_name=call.body.display_name,
        avatar_url=call.body.avatar_url,
        attributes=call.body.attributes,
        correlation_id=call.correlation_id,
        trace=call.trace,
    )
    result = await operations.decide(call.context, command, ProfileResult)
    return Answer(Profile(call.principal.user_id, result.display_name, result.avatar_url, result.attributes))


async def user(call: Call[None, None]) -> Answer:
    user_id = check_user_id(call.path["user_id"])
    await operations.settled(call.context)
    return Answer(await call.context.users.profile(call.principal.user_id, user_id))


async def blocks(call: Call[None, None]) -> Answer:
    await operations.settled(call.context)
    return Answer(Blocks(await call.context.users.blocks(call.principal.user_id)))


async def block_user(call: Call[None, None]) -> Answer:
    return Answer(await _block(call, blocks=True))


async def unblock_user(call: Call[None, None]) -> Answer:
    return Answer(await _block(call, blocks=False))


async def _block(call: Call[None, None], *, blocks: bool) -> Blocked:
    """Two facts in two partitions, both idempotent: repeated after an `unavailable`, the call completes them."""
    actor_id, user_id = call.principal.user_id, check_user_id(call.path["user_id"])
    kind = BlockUser if blocks else UnblockUser
    own = kind(actor_id=actor_id, user_id=user_id, correlation_id=call.correlation_id, trace=call.trace)
    pair = BlockPair(
        actor_id=actor_id, other_id=user_id, blocks=blocks, correlation_id=call.correlation_id, trace=call.trace
    )
    result = await operations.decide(call.context, own, BlockResult)
    await operations.decide(call.context, pair, BlockResult)
    return Blocked(result.user_id, result.blocked)


ENDPOINTS = (
    Endpoint("GET", "/v1/profile", profile, "One's own profile.", {200: (Profile, "The profile.")}),
    Endpoint(
        "PATCH",
        "/v1/profile",
        update_profile,
        "Change one's own profile.",
        {200: (Profile, "As it is now.")},
        body=ProfileChange,
        example={"display_name": "Ann", "attributes": {"pronouns": "she/her"}},
    ),
    Endpoint(
        "GET",
        "/v1/users/{user_id}",
        user,
        "The profile of somebody one shares a conversation with.",
        {200: (Profile, "The profile; empty if they never made one.")},
        errors=("not_found",),
    ),
    Endpoint("GET", "/v1/blocks", blocks, "Whom one has blocked.", {200: (Blocks, "All of them, by user id.")}),
    Endpoint(
        "PUT",
        "/v1/blocks/{user_id}",
        block_user,
        "Block somebody: neither of the two can open a direct conversation or post in it.",
        {200: (Blocked, "They are blocked.")},
    ),
    Endpoint(
        "DELETE",
        "/v1/blocks/{user_id}",
        unblock_user,
        "Block somebody no more.",
        {200: (Blocked, "They are not blocked.")},
    ),
)
