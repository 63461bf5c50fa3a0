"""What others call our commands is done or answered with what to type; nothing is taken for something else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.cli import idioms
from imagetool.cli.commands import GLOBALS, all_commands, find_command
from imagetool.cli.grammar import parse
from imagetool.cli.habits import hint_for, in_our_words
from imagetool.cli.typed import run_typed
from imagetool.errors import UsageError
from imagetool.transports import FOREIGN
from tests.support.command import imagetool

COMMANDS = all_commands()
OURS = {
    name: {spelt for option in (*made.options, *GLOBALS) for spelt in option.spellings}
    for name, made in COMMANDS.items()
}
OURS[""] = {spelt for option in GLOBALS for spelt in option.spellings} | {"--version", "--help", "-h"}
ALL = set().union(*OURS.values())
HINTS = [
    *idioms.COMMAND_HINTS.values(),
    *FOREIGN.values(),
    *(hint for of in idioms.OPTION_HINTS.values() for hint in of.values()),
]


@pytest.mark.parametrize(
    ("others", "ours"),
    [
        ("bud -t x .", "build -t x ."),
        ("--root /r bud --layers -t x .", "--root /r build -t x ."),
        ("buildx build --push -t x .", "build --push -t x ."),
        ("image ls", "images"),
        ("images -a", "images"),
        ("images --format json", "images --json"),
        ("image rm -f x y", "rmi -f x y"),
        ("image inspect x", "inspect x"),
        ("ps -a", "containers"),
        ("builder prune", "cache prune"),
        ("list-tags docker://h.example/x", "tags docker://h.example/x"),
        ("cp app:1 oci:x", "copy app:1 oci:x"),
        ("--insecure-policy copy --all --preserve-digests app:1 oci:x", "copy app:1 oci:x"),
        ("copy -a --dest-compress-format zstd app:1 oci:x", "copy --compression zstd app:1 oci:x"),
        ("push --compression-format=zstd app:1", "push --compression=zstd app:1"),
        ("save -m --format docker-archive -o f a b", "save --format docker -o f a b"),
        ("save --format=oci-archive a", "save --format=oci a"),
        ("history --format json x", "history --json x"),
    ],
)  # fmt: skip
def test_the_same_thing_in_other_words_is_done(others: str, ours: str) -> None:
    said, meant = (parse(words, find_command, GLOBALS) for words in (in_our_words(others.split()), ours.split()))
    assert (said.command.name, said.globals, said.values) == (meant.command.name, meant.globals, meant.values)


def test_what_is_in_our_words_already_stays() -> None:
    for words in [*idioms.COMMANDS, *((name,) for name in COMMANDS)]:
        once = in_our_words([*words, "x"])
        assert in_our_words(once) == once


@pytest.mark.parametrize("line", ["run x -- ps -a", "copy c -- -a /x", "cp c:/etc/passwd .", "rm -- --all"])
def test_what_is_no_option_and_no_command_is_left_alone(line: str) -> None:
    assert in_our_words(line.split()) == line.split()


@pytest.mark.parametrize("name", sorted(idioms.COMMAND_HINTS))
def test_a_command_that_is_not_here_is_answered_with_what_to_type(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        run_typed([name, "x"])
    assert str(refused.value) == f"there is no command {name!r}; {idioms.COMMAND_HINTS[name]}"


@pytest.mark.parametrize("command", sorted(idioms.OPTION_HINTS))
def test_an_option_that_is_not_here_is_answered_with_what_to_type(command: str) -> None:
    for name, hint in idioms.OPTION_HINTS[command].items():
        with pytest.raises(UsageError) as refused:
            run_typed([*([command] if command else []), f"{name}=x" if name.startswith("--") else name, "a", "b"])
        assert str(refused.value).endswith(f"there is no option {name!r}; {hint}")


DOCKER_RUN = """
--add-host --annotation -a --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop --cgroup-parent
--cgroupns --cidfile --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime -c --cpu-shares --cpus --cpuset-cpus
--cpuset-mems -d --detach --detach-keys --device --device-cgroup-rule --device-read-bps --device-read-iops
--device-write-bps --device-write-iops --disable-content-trust --dns --dns-option --dns-search --domainname
--entrypoint -e --env --env-file --expose --gpus --group-add --health-cmd --health-interval --health-retries
--health-start-interval --health-start-period --health-timeout -h --hostname --init -i --interactive --ip --ip6 --ipc
--isolation --kernel-memory -l --label --label-file --link --link-local-ip --log-driver --log-opt --mac-address -m
--memory --memory-reservation --memory-swap --memory-swappiness --mount --name --net --network --network-alias
--no-healthcheck --oom-kill-disable --oom-score-adj --pid --pids-limit --platform --privileged -p --publish -P
--publish-all --pull -q --quiet --read-only --restart --rm --runtime --security-opt --shm-size --sig-proxy
--stop-signal --stop-timeout --storage-opt --sysctl --tmpfs -t --tty --ulimit --use-api-socket -u --user --userns
--uts -v --volume --volume-driver --volumes-from -w --workdir
"""


def test_every_option_of_docker_run_is_ours_or_answered() -> None:
    assert [name for name in DOCKER_RUN.split() if name not in OURS["run"] and not hint_for("run", name)] == []


def test_no_table_has_what_is_ours() -> None:
    assert not {words[0] for words in idioms.COMMANDS if len(words) == 1} & set(COMMANDS)
    assert not set(idioms.COMMAND_HINTS) & set(COMMANDS)
    for table in (idioms.OPTION_HINTS, idioms.AS_ALWAYS, idioms.SAME):
        for command, names in table.items():
            assert not {name for name in names if "=" not in name} & OURS[command], command


def test_what_is_named_in_a_hint_is_there() -> None:
    for hint in HINTS:
        for name in re.findall(r"`(?:[^`]*\| )?imagetool ([a-z]+)", hint):
            assert name in {*COMMANDS, "registry"}, hint
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", hint)) <= ALL | {"--device"}, hint
    assert all(words[0] in COMMANDS for words in idioms.COMMANDS.values())


def test_help_is_a_command_too(tmp_path: Path) -> None:
    shown = imagetool("help", "build", root=tmp_path)
    assert shown.stdout == imagetool("build", "--help", root=tmp_path).stdout
    assert imagetool("help", root=tmp_path).stdout == imagetool("--help", root=tmp_path).stdout
    unknown = imagetool("help", "bild", root=tmp_path, check=False)
    assert (unknown.returncode, "did you mean 'build'?" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("scheme", sorted(FOREIGN))
def test_stores_of_other_programs_are_told_how_to_read(tmp_path: Path, scheme: str) -> None:
    done = imagetool("copy", f"{scheme}app:1", "oci:x", root=tmp_path, check=False)
    assert done.returncode == 2
    assert f"no such transport; {FOREIGN[scheme]}" in done.stderr


def test_a_directory_that_has_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone}; rmdir {gone}; exec {sys.executable} -m imagetool --root {tmp_path}/store build ."
    package = Path(__file__).parents[2]
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(package)}
    )
    assert done.returncode == 8
    assert done.stderr == "imagetool: the current directory is not there any more: cd to another\n"


def test_the_dockerfile_of_a_context_from_elsewhere_is_named_from_its_top(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    tar = subprocess.run(["tar", "c", "."], cwd=tmp_path, capture_output=True, check=True).stdout
    command = [sys.executable, "-m", "imagetool", "--root", tmp_path / "store", "build", "-f", "sub/Dockerfile", "-"]
    done = subprocess.run(command, input=tar, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"at sub/Dockerfile:2" in done.stderr
