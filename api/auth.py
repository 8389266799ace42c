"""Who is asking: JSON Web Tokens, verified with keys and algorithms that configuration pins.

A token is taken from the `Authorization` header, or from a session's first frame; never from a URL, which
ends up in logs and histories.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.exceptions import InvalidSubjectError
from starlette.requests import HTTPConnection

from api.errors import TokenExpired, Unauthenticated
from domain.errors import Invalid
from domain.ids import check_user_id

ADMIN_SCOPE: Final = "admin"
ANALYST_SCOPE: Final = "analyst"
SECRET_MIN_BYTES: Final = 32  # RFC 7518, 3.2: an HS256 key is no shorter than the hash
TOKEN_MAX: Final = 8_192  # characters; a token with a hundred scopes has a quarter of it
VERIFIED_MAX: Final = 20_000  # tokens remembered, about 300 bytes each; verifying one costs 30 to 150 µs
IN_URL: Final = ("token", "access_token", "jwt")

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)

_ALGORITHMS: Mapping[str, str] = {"RSA": "RS256", "OKP": "EdDSA"}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        expires_at: when their token ends, Unix seconds.
        issued_at: when it was made, by its own word; `None` if it does not say.
        analyst: whether they may ask the archive in SQL.
    """

    user_id: str
    admin: bool
    expires_at: float
    issued_at: float | None = None
    analyst: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A verification key and the one algorithm it is for."""

    value: Any  # bytes, or whatever public key PyJWT made of a JWK
    algorithm: str


class Authenticator:
    """Verifies tokens. Made by `with_secret` or `with_jwks`.

    Args:
        keys: by key id; the only one may be left unnamed by tokens.
        clock: Unix seconds.
    """

    def __init__(self, keys: Mapping[str, Key], *, clock: Callable[[], float] = time.time) -> None:
        self._keys = dict(keys)
        self._clock = clock
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()

    @classmethod
    def with_secret(cls, secret: bytes, *, clock: Callable[[], float] = time.time) -> "Authenticator":
        """HS256 with a shared secret.

        Raises:
            ValueError: under 32 bytes.
        """
        if len(secret) < SECRET_MIN_BYTES:
            raise ValueError(f"the JWT secret has {len(secret)} bytes; at least {SECRET_MIN_BYTES} are expected")
        return cls({"": Key(secret, "HS256")}, clock=clock)

    @classmethod
    def with_jwks(cls, document: str, *, clock: Callable[[], float] = time.time) -> "Authenticator":
        """RS256 for the RSA keys of a JWKS document, EdDSA for its Ed25519 keys.

        Raises:
            ValueError: not a JWKS, a key of another kind, or two of one id.
        """
        try:
            jwks = jwt.PyJWKSet.from_json(document)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"not a JWKS: {error}") from None
        keys: dict[str, Key] = {}
        for jwk in jwks.keys:
            algorithm = _ALGORITHMS.get(jwk.key_type or "")
            if algorithm is None or jwk.algorithm_name != algorithm:
                raise ValueError(f"the key {jwk.key_id!r} is for neither RS256 nor EdDSA")
            if (jwk.key_id or "") in keys:
                raise ValueError(f"two keys have the id {jwk.key_id!r}")
            keys[jwk.key_id or ""] = Key(jwk.key, algorithm)
        return cls(keys, clock=clock)

    def authenticate(self, connection: HTTPConnection) -> Principal:
        """Who a request's `Authorization` header names.

        Raises:
            Unauthenticated: no token, more than one, one in the URL, or one that is not believed.
            TokenExpired: it was good once.
        """
        for name in IN_URL:
            if name in connection.query_params:
                raise Unauthenticated(
                    f"a token is never taken from a URL ({name}=): send it in the Authorization header, "
                    "or use a one-time ticket"
                )
        given = connection.headers.getlist("authorization")
        if not given:
            raise Unauthenticated("send Authorization: Bearer <token>", token_given=False)
        match = _BEARER.fullmatch(given[0])
        if len(given) > 1 or match is None:
            raise Unauthenticated("the Authorization header is expected once, as: Bearer <token>")
        return self.verify(match[1])

    def verify(self, token: str) -> Principal:
        """Who a token names.

        Raises:
            Unauthenticated, TokenExpired.
        """
        if len(token) > TOKEN_MAX or not token.isascii():
            raise Unauthenticated("this is not a token")
        # Remembered by its hash: a dump of the memory does not hand out tokens.
        digest = hashlib.blake2b(token.encode(), digest_size=16).digest()
        principal = self._verified.get(digest)
        if principal is None:
            principal = self._decode(token)
            self._verified[digest] = principal
            if len(self._verified) > VERIFIED_MAX:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(digest)
        if principal.expires_at <= self._clock():
            del self._verified[digest]
            raise TokenExpired("the token has expired; get a new one")
        return principal

    def _decode(self, token: str) -> Principal:
        try:
            key = self._key_of(token)
            claims = jwt.decode(
                token,
                key.value,
                algorithms=[key.algorithm],
                # `exp` is compared by `verify`, at every use; a clock that is behind the issuer's is no reason
                # to refuse, so `iat` is not.
                options={"require": ["exp", "sub"], "verify_exp": False, "verify_iat": False},
            )
            expires_at = claims["exp"]
            if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
                raise Unauthenticated("the token is not valid: exp is not a number")
            user_id = check_user_id(claims["sub"])
        except Invalid as error:
            raise Unauthenticated(f"the token is not valid: sub: {error.detail}") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise Unauthenticated(f"the token is not valid: {_reason(error)}") from None
        scope, issued_at = claims.get("scope"), claims.get("iat")
        if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
            issued_at = None
        scopes = scope.split() if isinstance(scope, str) else []
        return Principal(
            user_id,
            admin=ADMIN_SCOPE in scopes,
            expires_at=float(expires_at),
            issued_at=issued_at,
            analyst=ADMIN_SCOPE in scopes or ANALYST_SCOPE in scopes,
        )

    def _key_of(self, token: str) -> Key:
        key_id = jwt.get_unverified_header(token).get("kid")
        if key_id in self._keys:
            return self._keys[key_id]
        if len(self._keys) == 1 and (key_id is None or "" in self._keys):
            return next(iter(self._keys.values()))
        raise Unauthenticated("the token is not valid: no key of this id is known")


# What PyJWT says, in words that hold no part of the token.
_REASONS: Mapping[type[Exception], str] = {
    jwt.InvalidSignatureError: "its signature does not match",
    jwt.InvalidAlgorithmError: "it is not signed with the algorithm expected here",
    jwt.ImmatureSignatureError: "it is not valid yet (nbf)",
    jwt.InvalidAudienceError: "it is meant for another audience",
    InvalidSubjectError: "sub is not a string",
}


def _reason(error: Exception) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"{error.claim} is missing"
    return _REASONS.get(type(error), "it cannot be read")
