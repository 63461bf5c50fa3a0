"""certs.d: which files speak for a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.config.certificates import tls_for
from imagetool.errors import InvalidReference, UsageError
from imagetool.remote.connect import Tls


def folder(home: Path, registry: str, *names: str) -> Path:
    place = home / ".config/containers/certs.d" / registry
    place.mkdir(parents=True)
    for name in names:
        (place / name).write_text("")
    return place


def test_authorities_and_our_own_certificate(tmp_path: Path) -> None:
    place = folder(tmp_path, "reg.example:5000", "b.crt", "a.crt", "me.cert", "me.key", "README", "x.pem")
    found = tls_for("reg.example:5000", environment={"HOME": str(tmp_path)})
    client = (place / "me.cert", place / "me.key")
    assert found == Tls(authorities=(place / "a.crt", place / "b.crt"), client=client)
    assert tls_for("reg.example:5000", verify=False, environment={"HOME": str(tmp_path)}).verify is False


def test_another_registry_or_port_has_none(tmp_path: Path) -> None:
    folder(tmp_path, "reg.example:5000", "a.crt")
    for registry in ("reg.example", "reg.example:5001", "other.example:5000"):
        assert tls_for(registry, environment={"HOME": str(tmp_path)}) == Tls()
    assert tls_for("reg.example:5000", environment={}) == Tls()


@pytest.mark.parametrize(("name", "missing"), [("me.cert", "me.key"), ("me.key", "me.cert")])
def test_half_a_pair_is_an_error_that_names_the_other_half(tmp_path: Path, name: str, missing: str) -> None:
    folder(tmp_path, "reg.example", name)
    with pytest.raises(UsageError, match=rf"{name} has no {missing} beside it"):
        tls_for("reg.example", environment={"HOME": str(tmp_path)})


@pytest.mark.parametrize("registry", ["..", "../x", "a/b", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, registry: str) -> None:
    with pytest.raises(InvalidReference):
        tls_for(registry, environment={"HOME": str(tmp_path)})
