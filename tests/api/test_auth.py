"""The authenticator by itself: algorithms and keys are configuration's, whatever a token says."""

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from api.auth import SECRET_MIN_BYTES, VERIFIED_MAX, Authenticator, Principal
from api.errors import TokenExpired, Unauthenticated

SECRET = b"s" * SECRET_MIN_BYTES
NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def token(secret: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    return jwt.encode({"sub": "alice", "exp": NOW + 60, **claims}, secret, algorithm, headers)


@pytest.fixture(scope="module")
def rsa_key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def ed_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def jwks(rsa_key: RSAPrivateKey, ed_key: Ed25519PrivateKey) -> str:
    rsa = {**RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True), "kid": "rsa", "alg": "RS256"}
    ed = {**OKPAlgorithm.to_jwk(ed_key.public_key(), as_dict=True), "kid": "ed"}
    return json.dumps({"keys": [rsa, ed]})


def test_a_token_names_its_user_scope_and_end() -> None:
    authenticator = Authenticator.with_secret(SECRET, clock=Clock())
    assert authenticator.verify(token()) == Principal("alice", False, NOW + 60)
    assert authenticator.verify(token(scope="read admin")).admin
    for scope in ("administrator", ["admin"], 1, None):
        assert not authenticator.verify(token(scope=scope)).admin


def test_a_verified_token_still_expires() -> None:
    clock = Clock()
    authenticator = Authenticator.with_secret(SECRET, clock=clock)
    good = token()
    assert authenticator.verify(good) is authenticator.verify(good)
    clock.now = NOW + 60
    for _ in range(2):
        with pytest.raises(TokenExpired):
            authenticator.verify(good)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "a b"}, "sub"),
        ({"exp": "soon"}, "exp"),
        ({"exp": True}, "exp"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"aud": "another"}, "audience"),
    ],
)
def test_claims_that_do_not_do_are_refused(claims: dict[str, Any], reason: str) -> None:
    # PyJWT refuses to encode a `sub` that is no string, and decides about some of the others with the wall clock.
    given = {"sub": "alice", "exp": NOW + 60, **claims}
    payload = json.dumps({name: value for name, value in given.items() if value is not None}).encode()
    signed = jwt.api_jws.encode(payload, SECRET, "HS256")
    with pytest.raises(Unauthenticated, match=reason):
        Authenticator.with_secret(SECRET, clock=Clock()).verify(signed)


def test_a_clock_ahead_of_ours_is_no_reason_to_refuse() -> None:
    assert Authenticator.with_secret(SECRET, clock=Clock()).verify(token(iat=4_000_000_000)).user_id == "alice"


@pytest.mark.parametrize("bad", ["", "a", "a.b.c", "..", "é.b.c", "x" * 9000, token() + "x", token()[:-2]])
def test_what_is_no_token_is_refused(bad: str) -> None:
    with pytest.raises(Unauthenticated):
        Authenticator.with_secret(SECRET, clock=Clock()).verify(bad)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_of_the_same_secret_is_refused(algorithm: str) -> None:
    secret = b"s" * 64
    with pytest.raises(Unauthenticated, match="algorithm"):
        Authenticator.with_secret(secret, clock=Clock()).verify(token(secret, algorithm))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        Authenticator.with_secret(b"short")


def test_each_key_of_a_jwks_verifies_its_own(jwks: str, rsa_key: RSAPrivateKey, ed_key: Ed25519PrivateKey) -> None:
    authenticator = Authenticator.with_jwks(jwks, clock=Clock())
    assert authenticator.verify(token(rsa_key, "RS256", {"kid": "rsa"})).user_id == "alice"
    assert authenticator.verify(token(ed_key, "EdDSA", {"kid": "ed"})).user_id == "alice"
    for key, algorithm, kid in ((rsa_key, "RS256", "ed"), (ed_key, "EdDSA", "rsa"), (rsa_key, "RS256", "other")):
        with pytest.raises(Unauthenticated):
            authenticator.verify(token(key, algorithm, {"kid": kid}))
    with pytest.raises(Unauthenticated):  # which of the two?
        authenticator.verify(token(rsa_key, "RS256"))


def test_a_public_key_is_not_a_shared_secret(jwks: str, rsa_key: RSAPrivateKey) -> None:
    # The classic confusion: the public key, which everybody has, used to sign with HS256.
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, claims, _ = token(headers={"kid": "rsa"}).split(".")
    signature = hmac.digest(public, f"{header}.{claims}".encode(), "sha256")  # PyJWT would not sign with it
    forged = f"{header}.{claims}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(Unauthenticated, match="algorithm"):
        Authenticator.with_jwks(jwks, clock=Clock()).verify(forged)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{}",
        "[]",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
    ],
)
def test_a_jwks_of_nothing_usable_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match=r"JWKS|neither"):
        Authenticator.with_jwks(document)


def test_the_memory_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VERIFIED_MAX >= 1_000
    monkeypatch.setattr("api.auth.VERIFIED_MAX", 3)
    authenticator = Authenticator.with_secret(SECRET, clock=Clock())
    first = token(jti="0")
    principal = authenticator.verify(first)
    for number in range(1, 4):
        authenticator.verify(token(jti=str(number)))
    assert authenticator.verify(first) is not principal
