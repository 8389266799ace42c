"""Why a gateway does not let a session in.

RateLimited
└── TooManySessions    the user's own doing
Unavailable
├── Crowded            come again, elsewhere if there is another gateway
│   └── Full
└── Draining           come again, elsewhere
"""

from api.errors import RateLimited
from domain.errors import Unavailable


class TooManySessions(RateLimited):
    """The user has as many sessions here as one may have."""


class Crowded(Unavailable):
    """As many wait to begin here as can be served while they have patience."""


class Full(Crowded):
    """This gateway holds as many sessions as it may."""


class Draining(Unavailable):
    """This gateway lets no session in any more."""
