"""Which ids an ordinary user may map."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.runtime.namespaces import IdRange, map_arguments, outer_options, same_ids, subordinate_ids


def test_ranges_are_found_by_name_or_number_in_order() -> None:
    text = "other:1:2\napp:100000:65536\n# comment\n1000:300000:10\napp:x:5\napp:7\napp:5:0\n"
    assert subordinate_ids(text, "app", 1000) == (IdRange(100000, 65536), IdRange(300000, 10))
    assert subordinate_ids(text, "nobody", 65534) == ()


def test_a_containers_ids_stay_what_they_are_but_never_look_like_the_hosts() -> None:
    assert same_ids("         0     100000      65536\n     70000 5 1\n") == "0 0 65536\n70000 70000 1\n"
    assert same_ids("         0          0 4294967295\n") == "0 0 4294967294\n"


def test_ranges_follow_the_users_own_id_without_gaps() -> None:
    spans = (IdRange(100000, 10), IdRange(300000, 5))
    assert map_arguments(1000, spans) == ["0", "1000", "1", "1", "100000", "10", "11", "300000", "5"]


@pytest.mark.parametrize(
    ("label", "named"), [("docker-default (enforce)\n", True), ("unconfined\n", False), ("x (complain)\n", False)]
)
def test_the_option_against_apparmor_is_named_where_that_confines(tmp_path: Path, label: str, named: bool) -> None:
    (tmp_path / "current").write_text(label)
    assert ("--security-opt apparmor=unconfined" in outer_options(tmp_path / "current")) == named
    assert outer_options(tmp_path / "missing") == "--security-opt seccomp=unconfined"
