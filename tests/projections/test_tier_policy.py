"""How long what is kept where."""

from datetime import UTC, datetime

import pytest

from projections.tiers.policy import WarmPolicy
from runtime.settings import Settings, SettingsError

NOW = datetime(2026, 2, 14, 12, tzinfo=UTC)


def test_a_policy_is_of_all_kinds_and_then_of_some() -> None:
    policy = WarmPolicy.parse("3, direct=14,channel=0")
    assert policy.months == {"direct": 14, "group": 3, "channel": 0}
    assert policy.horizons(NOW) == {
        "direct": datetime(2025, 1, 1, tzinfo=UTC),
        "group": datetime(2025, 12, 1, tzinfo=UTC),
    }


@pytest.mark.parametrize(
    ("end", "kinds"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), set()),
        (datetime(2025, 12, 1, tzinfo=UTC), {"group"}),
        (datetime(2025, 1, 1, tzinfo=UTC), {"group", "direct"}),
    ],
)
def test_a_month_leaves_when_all_of_it_is_before_the_horizon(end: datetime, kinds: set[str]) -> None:
    assert set(WarmPolicy.parse("3,direct=14,channel=0").leaving(end, NOW)) == kinds


@pytest.mark.parametrize("text", ["", "x", "-1", "3,room=2", "3,direct", "direct=3", "3,,"])
def test_what_is_no_policy_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="no"):
        WarmPolicy.parse(text)
    if text:  # an empty variable is an absent one
        with pytest.raises(SettingsError):
            Settings.load({"RIVERRUN_WARM_MONTHS": text})
