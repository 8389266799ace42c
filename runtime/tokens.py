"""The tokens Riverrun mints itself, for its command line, benchmarks and tests: HS256, as the API takes them."""

import time

import jwt

from runtime.secret_file import load_or_create_secret

__all__ = ["load_or_create_secret", "mint"]


def mint(user_id: str, *, ttl_s: float, admin: bool, secret: str, analyst: bool = False) -> str:
    """A JWT that says to be `user_id` for `ttl_s` seconds (whole ones), with the scopes `admin`, `analyst` if asked.

    Args:
        secret: the deployment's shared secret; whoever has it may be anybody.
    """
    now = int(time.time())
    claims: dict[str, str | int] = {"sub": user_id, "iat": now, "exp": now + round(ttl_s)}
    if scopes := [scope for scope, given in (("admin", admin), ("analyst", analyst)) if given]:
        claims["scope"] = " ".join(scopes)
    return jwt.encode(claims, secret, algorithm="HS256")
