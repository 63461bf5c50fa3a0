"""`imagetool lint` and `imagetool build --check`, run as programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BAD = "FROM scratch\nCMD echo one\n"
GOOD = 'FROM scratch\nCMD ["echo", "one"]\n'


def run(*args: str, cwd: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "IMAGETOOL_ROOT": str(cwd / "store")}
    program = [sys.executable, "-m", "imagetool", *args]
    return subprocess.run(program, cwd=cwd, input=text, capture_output=True, text=True, env=env, check=False)


def test_a_clean_file_is_silent_and_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(GOOD)
    done = run("lint", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "store").exists()


def test_findings_go_to_stdout_and_the_exit_code_is_7(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(BAD)
    done = run("lint", cwd=tmp_path)
    assert done.returncode == 7
    assert done.stdout.startswith("Dockerfile:2: warning: JSONArgsRecommended: ")
    assert "   2 | >>> CMD echo one\n     |     ^^^\n" in done.stdout
    assert done.stderr.startswith("imagetool: 1 finding in Dockerfile")


def test_build_check_looks_and_builds_nothing(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY left-out /\n")
    (tmp_path / ".dockerignore").write_text("left-*\n")
    done = run("build", "--check", ".", cwd=tmp_path)
    assert done.returncode == 7
    assert "CopyIgnoredFile" in done.stdout
    assert not (tmp_path / "store").exists()
    (tmp_path / ".dockerignore").unlink()
    assert run("build", "--check", ".", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("form", ["json", "sarif", "gitlab"])
def test_formats_for_programs_are_json_and_nothing_else(form: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text(BAD)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "Containerfile").write_text(BAD)
    done = run("lint", "--format", form, "one", "two", "-", cwd=tmp_path, text=BAD)
    assert done.returncode == 7
    text = json.dumps(json.loads(done.stdout))
    assert text.count("JSONArgsRecommended") >= 3
    assert "two/Containerfile" in text


def test_a_wrong_file_ends_with_1_and_a_missing_one_with_3(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nRUNN x\n")
    done = run("lint", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("imagetool: Dockerfile:2: unknown instruction: RUNN (did you mean RUN?)\n")
    assert "     |     ^^^^\n" in done.stderr
    assert run("lint", "missing", cwd=tmp_path).returncode == 3
    assert run("lint", "--format", "xml", cwd=tmp_path).returncode == 2


def test_build_arguments_and_the_platform_are_heard(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG dir\nWORKDIR $dir\n")
    assert run("lint", cwd=tmp_path).returncode == 0
    assert run("lint", "--build-arg", "dir=x", cwd=tmp_path).returncode == 7
    skip = "BUILDKIT_DOCKERFILE_CHECK=skip=all"
    assert run("lint", "--build-arg", "dir=x", "--build-arg", skip, cwd=tmp_path).returncode == 0


def test_a_build_fails_with_7_where_the_file_wants_findings_to_be_errors(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"# check=error=true\n{BAD}")
    done = run("build", ".", cwd=tmp_path)
    assert done.returncode == 7
    assert "JSONArgsRecommended (line 3)" in done.stderr
    (tmp_path / "Dockerfile").write_text(f"# check=error=true;skip=JSONArgsRecommended\n{BAD}")
    assert run("build", ".", cwd=tmp_path).returncode == 0
    (tmp_path / "Dockerfile").write_text(BAD)
    assert run("build", ".", cwd=tmp_path).returncode == 0
    assert run("build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true", ".", cwd=tmp_path).returncode == 7
    done = run("build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true;skip=all", ".", cwd=tmp_path)
    assert (done.returncode, "BUILDKIT_DOCKERFILE_CHECK" in done.stderr) == (0, False)


def test_what_a_local_base_image_brings_is_known(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV TOOL_HOME=/tools\n")
    made = run("build", "--platform", "linux/arm64", "-t", "tools:1", ".", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (tmp_path / "Dockerfile").write_text("FROM tools:1\nWORKDIR $TOOL_HOME\nUSER $TOOL_USER\n")

    def found(platform: str) -> list[tuple[str, int]]:
        done = run("lint", "--platform", platform, "--format", "json", cwd=tmp_path)
        return [(row["rule"], row["line"]) for row in json.loads(done.stdout)["findings"]]

    assert found("linux/arm64") == [("UndefinedVar", 3)]
    assert found("linux/amd64") == [("InvalidBaseImagePlatform", 1), ("UndefinedVar", 3)]


WARNED = "FROM scratch as x\nENV a b\n\nENV c=1 \\\n\n d=2\nENV é=1\n"
LINES = [
    "3 warnings found (build --check shows more):",
    " - FromAsCasing: ",
    " - LegacyKeyValueFormat: ",
    " - NoEmptyContinuation: ",
]


def told(stderr: str) -> list[str]:
    """Return what a build told of its checks, from the headline on."""
    lines = stderr.splitlines()
    return lines[next((at for at, line in enumerate(lines) if "found (build --check" in line), len(lines)) :]


def test_a_build_tells_what_is_found_whether_it_is_carried_out_cached_or_answered(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(WARNED)
    os.utime(tmp_path / "Dockerfile", (1_000_000_000, 1_000_000_000))
    for flags in (["--no-cache"], ["--explain-cache"], [], ["--progress", "plain"]):
        done = run("build", *flags, ".", cwd=tmp_path)
        lines = told(done.stderr)
        assert done.returncode == 0
        assert [line.startswith(wanted) for line, wanted in zip(lines, LINES, strict=True)] == [True] * 4, done.stderr
        assert lines[1].endswith("(line 1)")
        assert "warning: Dockerfile" not in done.stderr, "nothing is told twice"


def test_a_build_tells_programs_what_is_found_as_events(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(WARNED)
    for _ in range(2):
        done = run("build", "--progress", "json", ".", cwd=tmp_path)
        events = [json.loads(line) for line in done.stderr.splitlines()]
        found = [(event["rule"], event["file"], event["line"]) for event in events if event["event"] == "CheckFound"]
        assert [rule for rule, _, _ in found] == ["FromAsCasing", "LegacyKeyValueFormat", "NoEmptyContinuation"]
        assert found[0][1:] == ("Dockerfile", 1)


def test_a_build_tells_nothing_when_it_is_quiet_or_was_told_not_to(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(WARNED)
    done = run("build", "-q", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "Dockerfile").write_text("# check=skip=all\n" + WARNED)
    assert told(run("build", ".", cwd=tmp_path).stderr) == []
    (tmp_path / "Dockerfile").write_text(GOOD)
    assert told(run("build", ".", cwd=tmp_path).stderr) == []


def test_a_build_that_fails_tells_it_before_its_error(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(WARNED + "COPY none /\n")
    done = run("build", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert told(done.stderr)[1].startswith(" - FromAsCasing")
    assert done.stderr.index("FromAsCasing") < done.stderr.index("imagetool: ")


def test_a_build_for_several_platforms_tells_it_once(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(WARNED)
    done = run("build", "--platform", "linux/amd64,linux/arm64", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("FromAsCasing")) == (0, 1)
