"""What users say of themselves to those they talk with."""

import re
from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType

from domain.errors import Invalid
from domain.names import checked_name

DISPLAY_NAME_MAX = 100
AVATAR_URL_MAX = 2_048  # what browsers and proxies take
ATTRIBUTES_MAX = 32
ATTRIBUTE_VALUE_MAX = 512  # characters
ATTRIBUTES_BYTES_MAX = 8 * 1024  # of all, as UTF-8: a profile is pushed, and read with many others
_AVATAR_URL = re.compile(r"https?://[!-~]+")
_ATTRIBUTE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEY_SHOWN_MAX = 64  # of a bad key, in the field that an error names


@dataclass(frozen=True, slots=True)
class Profile:
    """`attributes` is the host application's: Riverrun keeps it within limits and reads nothing into it."""

    display_name: str | None = None
    avatar_url: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    def changed(
        self,
        *,
        display_name: str | UnsetType | None = UNSET,
        avatar_url: str | UnsetType | None = UNSET,
        attributes: dict[str, str] | UnsetType = UNSET,
    ) -> "Profile":
        """This profile with what is given laid over it; `None` clears, attributes replace all there were.

        Raises:
            Invalid: a bad name, URL or attribute.
        """
        return Profile(
            self.display_name
            if display_name is UNSET
            else checked_name(display_name, max_chars=DISPLAY_NAME_MAX, field="display_name"),
            self.avatar_url if avatar_url is UNSET else _checked_url(avatar_url),
            self.attributes if attributes is UNSET else _checked_attributes(attributes),
        )


def _checked_url(url: str | None) -> str | None:
    if url is not None and (len(url) > AVATAR_URL_MAX or not _AVATAR_URL.fullmatch(url)):
        raise Invalid(
            f"a URL that starts with http:// or https://, at most {AVATAR_URL_MAX:,} characters of printable ASCII",
            field="avatar_url",
        )
    return url


def _checked_attributes(attributes: dict[str, str]) -> dict[str, str]:
    if len(attributes) > ATTRIBUTES_MAX:
        raise Invalid(f"at most {ATTRIBUTES_MAX} attributes", field="attributes")
    for key, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(key):
            raise Invalid(
                "an attribute's name is 1 to 64 characters of A-Z a-z 0-9 _ . -",
                field=f"attributes.{_shown(key)}",
            )
        if len(value) > ATTRIBUTE_VALUE_MAX:
            raise Invalid(f"at most {ATTRIBUTE_VALUE_MAX} characters", field=f"attributes.{key}")
        if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise Invalid("no NUL and no lone surrogate", field=f"attributes.{key}")
    if sum(len(key) + len(value.encode()) for key, value in attributes.items()) > ATTRIBUTES_BYTES_MAX:
        raise Invalid(f"at most {ATTRIBUTES_BYTES_MAX:,} bytes in all", field="attributes")
    return dict(attributes)


def _shown(key: str) -> str:
    return key[:_KEY_SHOWN_MAX].encode("ascii", "backslashreplace").decode()
