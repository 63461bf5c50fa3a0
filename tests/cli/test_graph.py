"""`imagetool graph`: boxes that do not lie on each other, and a picture that is harmless whatever is in it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.cli.app import run
from imagetool.cli.graphsvg import svg
from imagetool.cli.layers import arrange
from tests.unit.build.test_stagegraph import _graph

_SVG = "{http://www.w3.org/2000/svg}"


@given(
    st.lists(st.floats(20, 400), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
)
def test_boxes_and_lines_keep_their_distance_and_lines_go_to_the_right(
    heights: list[float], pairs: list[tuple[int, int]]
) -> None:
    names = {str(number): height for number, height in enumerate(heights)}
    links = {(str(a), str(b)): 17.0 for a, b in pairs if a < b < len(heights)}
    boxes, ways = arrange(names, links, out=17, gap=26)
    columns: dict[int, list[tuple[float, float]]] = {}
    for box in (*boxes.values(), *(box for way in ways.values() for box in way)):
        columns.setdefault(box.column, []).append((box.top, box.top + box.height))
    for column in columns.values():
        column.sort()
        assert all(after[0] - before[1] >= 26 - 1e-6 for before, after in itertools.pairwise(column))
    assert min(top for column in columns.values() for top, _ in column) == pytest.approx(0)
    for (start, end), way in ways.items():
        passed = [boxes[start].column, *(box.column for box in way), boxes[end].column]
        assert passed == list(range(boxes[start].column, boxes[end].column + 1))
        assert len(passed) > 1


def test_a_picture_has_all_texts_and_lines_and_runs_nothing() -> None:
    evil = '</text><script>alert(1)</script><a href="x" onload=y>&amp;]]>'
    text = f"FROM a AS one\nLABEL x='{evil}'\nFROM b AS two\nFROM one AS three\nCOPY --from=two / /\n"
    graph = _graph(text=text)
    root = ElementTree.fromstring(svg(graph))
    tags = {element.tag.removeprefix(_SVG) for element in root.iter()}
    assert tags == {"svg", "title", "desc", "style", "defs", "marker", "path", "g", "rect", "text", "tspan"}
    assert not any(name.startswith("on") or "href" in name for element in root.iter() for name in element.attrib)
    lines = [element for element in root.iter(f"{_SVG}path") if element.get("marker-end")]
    assert len(lines) == len(graph.edges) + 2  # two kinds of lines in the legend
    assert any(evil in (element.text or "") for element in root.iter(f"{_SVG}title"))


def test_what_is_not_built_is_grey_and_the_target_stands_out() -> None:
    root = ElementTree.fromstring(svg(_graph("server")))
    marks = {element.findtext(f"{_SVG}text"): str(element.get("class")).split() for element in root.iter(f"{_SVG}g")}
    assert "unreached" in marks["test"]
    assert "unreached" in marks["busybox"]
    assert marks["server"] == ["stage", "target"]
    assert marks["base"] == ["stage"]


def test_a_stage_of_many_steps_shows_the_first_and_says_how_many_more() -> None:
    text = "FROM scratch AS a\n" + "".join(f"ENV a{n}=b\n" for n in range(40)) + "COPY --from=b / /\n"
    shown = svg(_graph(text=text))
    assert "13 more steps" in "".join(ElementTree.fromstring(shown).itertext())


def test_the_command_writes_what_the_name_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch AS a\nCOPY --from=docs / /\nFROM a\n")
    context = str(tmp_path)
    for args in (["--output", f"{tmp_path}/out.svg"], []):
        assert run(["graph", "--build-context", "docs=.", *args, context]) == 0
    assert capsys.readouterr().out == (tmp_path / "out.svg").read_text()
    assert run(["graph", "-o", f"{tmp_path}/out.json", context]) == 0
    tree = json.loads((tmp_path / "out.json").read_text())
    assert [node["id"] for node in tree["nodes"]] == ["scratch", "docs", "stage-0", "stage-1"]
    assert run(["graph", "--format", "dot", "--target", "a", context]) == 0
    assert capsys.readouterr().out.startswith("digraph")
    assert run(["graph", "--target", "b", context]) == 2
    assert "no stage is named 'b'" in capsys.readouterr().err
    (tmp_path / "Dockerfile").write_text("FRM scratch\n")
    assert run(["graph", context]) == 1
    assert "Dockerfile:1" in capsys.readouterr().err


def test_the_dockerfile_is_wherever_build_finds_one(tmp_path: Path) -> None:
    text = "FROM scratch AS a\nCOPY x /\nFROM a\nENV A=$UNSET\nCMD echo\n"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/Dockerfile").write_text(text)
    (tmp_path / "some.df").write_text(text)
    with tarfile.open(tmp_path / "files.tar", "w") as tar:
        tar.add(tmp_path / "folder", ".")
    program, root = [sys.executable, "-m", "imagetool"], tmp_path / "root"
    drawn, found = [], []
    for args, stdin in (
        (["folder"], b""),
        (["some.df"], b""),
        (["files.tar"], b""),
        (["-"], text.encode()),
        (["-"], (tmp_path / "files.tar").read_bytes()),
        (["--file", "-", "folder"], text.encode()),
    ):
        command = [*program, "--root", root, "graph", "--format", "json", *args]
        done = subprocess.run(command, input=stdin, cwd=tmp_path, capture_output=True, check=True)
        drawn.append(done.stdout)
        command = [*program, "--root", root, "build", "--check", *args]
        done = subprocess.run(command, input=stdin, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 7, done.stderr
        found.append(done.stdout.replace(b"folder/Dockerfile", b"Dockerfile"))
    assert len(set(drawn)) == len(set(found)) == 1
    assert list((root / "scratch").iterdir()) == []
    lost = subprocess.run([*program, "--root", root, "graph", "gone"], cwd=tmp_path, capture_output=True, check=False)
    assert (lost.returncode, lost.stderr) == (3, b"imagetool: build context gone is not a directory\n")
