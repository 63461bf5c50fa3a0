"""--cap-add, --cap-drop and --security-opt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagetool.errors import UsageError
from imagetool.runtime.capabilities import NAMES
from imagetool.runtime.security import DEFAULT_CAPABILITIES, Security, security_of


@pytest.mark.parametrize(
    ("added", "dropped", "held"),
    [
        ([], [], set(DEFAULT_CAPABILITIES)),
        (["net_raw", "CAP_MKNOD"], [], {*DEFAULT_CAPABILITIES, "CAP_NET_RAW", "CAP_MKNOD"}),
        ([], ["chown", "CAP_KILL"], {*DEFAULT_CAPABILITIES} - {"CAP_CHOWN", "CAP_KILL"}),
        ([], ["all"], set()),
        (["chown"], ["ALL"], {"CAP_CHOWN"}),
        (["ALL"], [], set(NAMES)),
        (["all"], ["sys_admin"], set(NAMES) - {"CAP_SYS_ADMIN"}),
        (["kill"], ["kill"], {*DEFAULT_CAPABILITIES} - {"CAP_KILL"}),
    ],
)
def test_capabilities_are_added_and_dropped(added: list[str], dropped: list[str], held: set[str]) -> None:
    assert set(security_of(cap_add=added, cap_drop=dropped).capabilities) == held


def test_security_options() -> None:
    assert security_of() == Security()
    assert security_of(security_opt=["seccomp=unconfined"]).seccomp is None
    assert security_of(security_opt=["seccomp=unconfined"]).seccomp_tree() is None
    assert security_of(security_opt=["no-new-privileges"]).no_new_privileges
    assert security_of(security_opt=["no-new-privileges=true"]).no_new_privileges
    assert not security_of(security_opt=["no-new-privileges=false"]).no_new_privileges


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    tree = security_of(security_opt=[f"seccomp={tmp_path / 'p.json'}"]).seccomp_tree()
    assert tree == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    (tmp_path / "p.json").write_text('{"defaultAction": "ALLOW"}')
    with pytest.raises(UsageError) as refused:
        security_of(security_opt=[f"seccomp={tmp_path / 'p.json'}"])
    assert "p.json" in refused.value.__notes__[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cap_add": ["everything"]},
        {"cap_drop": [""]},
        {"security_opt": ["seccomp="]},
        {"security_opt": ["seccomp"]},
        {"security_opt": ["apparmor=unconfined"]},
        {"security_opt": ["no-new-privileges=maybe"]},
    ],
)
def test_what_is_misspelt_is_a_usage_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        security_of(**wrong)


def test_an_unknown_capability_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        Security(("CAP_EVERYTHING",))
