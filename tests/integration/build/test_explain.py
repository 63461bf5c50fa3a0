"""--explain-cache says of each step whether the cache had it, and what changed first when not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import imagetool

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM base AS one
ARG V=1
RUN echo $V > /v
COPY src/ /app/
FROM base AS two
WORKDIR /made
FROM one
COPY --from=two /made /made
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.root, self.context = folder / "store", folder / "context"
        (self.context / "src").mkdir(parents=True)
        (self.context / "src/app.py").write_text("first")
        (self.context / "src/lib.py").write_text("lib")
        self.write(DOCKERFILE)
        imagetool("base", "busybox", "--tag", "base", root=self.root)
        self.explained()

    def write(self, text: str) -> None:
        (self.context / "Dockerfile").write_text(text)

    def explained(self, *options: str) -> dict[str, str]:
        """Build; return what was said of the steps, by instruction."""
        shown = imagetool("build", "--explain-cache", *options, self.context, root=self.root).stderr
        found = {}
        for line in shown.splitlines():
            if line.startswith("cache: HIT  "):
                found[line[12:]] = "HIT"
            elif line.startswith("cache: MISS "):
                step, _, why = line[12:].partition(": ")
                found[step] = why
        return found


RUN, COPY, FROM, MADE = "RUN echo $V > /v", "COPY src/ /app/", "COPY --from=two /made /made", "WORKDIR /made"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_nothing_changed(project: Project) -> None:
    assert project.explained() == dict.fromkeys((RUN, COPY, MADE, FROM), "HIT")


def test_files(project: Project) -> None:
    (project.context / "src/app.py").write_text("second")
    assert project.explained() == {
        RUN: "HIT",
        COPY: "src/app.py changed",
        MADE: "HIT",
        FROM: "base digest moved",
    }
    (project.context / "src/new.py").write_text("new")
    assert project.explained()[COPY] == "src/new.py is new"
    (project.context / "src/lib.py").unlink()
    assert project.explained()[COPY] == "src/lib.py is gone"


def test_variables_and_commands(project: Project) -> None:
    found = project.explained("--build-arg", "V=2")
    assert found[RUN] == "ENV or ARG V 1 → 2"
    assert found[COPY] == "a step before it is another"
    project.write(DOCKERFILE.replace("echo $V", "printf $V").replace("COPY src/ /app/", "COPY src/ /other/"))
    found = project.explained("--build-arg", "V=2")
    assert found["RUN printf $V > /v"] == "the command changed"
    project.write(DOCKERFILE)
    project.explained()
    project.write(DOCKERFILE.replace("COPY src/ /app/", "COPY src/ /other/"))
    assert project.explained()["COPY src/ /other/"] == "dest /app/ → /other/"


def test_another_base(project: Project) -> None:
    (project.root.parent / "tree").mkdir()
    (project.root.parent / "tree/file").write_text("x")
    (project.context / "Dockerfile").write_text("FROM base\nCOPY src /x\n")
    project.explained()
    imagetool("base", str(project.root.parent / "tree"), "--tag", "base", root=project.root)
    assert project.explained() == {"COPY src /x": "base digest moved"}


def test_the_cache_may_be_left_out_for_one_stage(project: Project) -> None:
    found = project.explained("--no-cache-filter", "two")
    assert found == {RUN: "HIT", COPY: "HIT", MADE: "the cache is not to be used", FROM: "HIT"}
    done = imagetool("build", "--no-cache-filter", "tow", project.context, root=project.root, check=False)
    assert done.returncode == 2
    assert "did you mean" in done.stderr
