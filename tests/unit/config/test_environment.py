from __future__ import annotations

import pytest

from imagetool.config.environment import network_fallback
from imagetool.errors import UsageError


def test_the_network_without_a_helper_is_the_hosts_or_refused() -> None:
    name = "IMAGETOOL_NETWORK_FALLBACK"
    assert [network_fallback({}), network_fallback({name: ""}), network_fallback({name: "host"})] == ["host"] * 3
    assert network_fallback({name: "refuse"}) == "refuse"
    with pytest.raises(UsageError, match="is host or refuse, not 'never'"):
        network_fallback({name: "never"})
