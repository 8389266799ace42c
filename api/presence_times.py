"""The times of presence, in seconds, each with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PresenceTimes:
    """All gateways of a deployment have the same.

    Attributes:
        lease_s: after which a gateway that is not heard counts as dead, and its users as offline. Three renewals.
        refresh_s: between renewals of the lease.
        rewrite_s: in which everybody is written once more, a few at each renewal: against eviction, and to be kept.
        gather_s: for which changes are gathered into one write.
        away_s: without a request, after which a user is away.
        flap_s: for which what is lost is not told: a client that lost its network is back by then.
        push_every_s: at most one push about a user in that time, and so many more for who watches hundreds.
        poll_s: between looks at which gateways live; what a flush took is written anew well within `flap_s`.
        recheck_s: after which it is asked again whether watcher and watched are acquainted, and each watched user is
            read again, should a notice have been lost.
    """

    lease_s: float = 15.0
    refresh_s: float = 5.0
    rewrite_s: float = 600.0
    gather_s: float = 0.05
    away_s: float = 300.0
    flap_s: float = 4.0
    push_every_s: float = 1.0
    poll_s: float = 2.0
    recheck_s: float = 60.0
