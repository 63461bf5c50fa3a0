"""Which ids an ordinary user may map."""

from __future__ import annotations

from imagetool.runtime.namespaces import IdRange, map_arguments, subordinate_ids


def test_ranges_are_found_by_name_or_number_in_order() -> None:
    text = "other:1:2\napp:100000:65536\n# comment\n1000:300000:10\napp:x:5\napp:7\napp:5:0\n"
    assert subordinate_ids(text, "app", 1000) == (IdRange(100000, 65536), IdRange(300000, 10))
    assert subordinate_ids(text, "nobody", 65534) == ()


def test_ranges_follow_the_users_own_id_without_gaps() -> None:
    spans = (IdRange(100000, 10), IdRange(300000, 5))
    assert map_arguments(1000, spans) == ["0", "1000", "1", "1", "100000", "10", "11", "300000", "5"]
