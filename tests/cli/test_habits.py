"""Every option of docker build and buildah build is ours, is said in our words, or is an error with a hint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imagetool.cli.commands import GLOBALS, all_commands, find_command
from imagetool.cli.grammar import parse
from imagetool.cli.habits import _OF_CONTAINERS, AS_ALWAYS, HINTS, SAME, hint_for, in_our_words
from tests.support.command import imagetool

DOCKER = """
--add-host --allow --annotation --attest --build-arg --build-context --builder --cache-from --cache-to --call
--cgroup-parent --check --cpu-period --cpu-quota --cpu-shares --cpuset-cpus --cpuset-mems -D --debug -f --file
--iidfile --label --load --memory -m --memory-swap --metadata-file --network --no-cache --no-cache-filter -o --output
--platform --policy --progress --provenance --pull --push -q --quiet --sbom --secret --shm-size --ssh -t --tag
--target --ulimit --compress --disable-content-trust --force-rm --isolation --rm --security-opt --squash
"""
BUILDAH = """
--add-host --all-platforms --allow --annotation --arch --authfile --blob-cache --build-arg --build-arg-file
--build-context --cache-from --cache-to --cache-ttl --cap-add --cap-drop --cert-dir --cgroup-parent --cgroupns
--compat-volumes --compress --cpp-flag --cpu-period --cpu-quota --cpu-shares --cpuset-cpus --cpuset-mems
--created-annotation --creds --cw --decryption-key --device --disable-compression -D --disable-content-trust --dns
--dns-option --dns-search --env --file -f --force-compression --force-rm --format --from --group-add --hooks-dir
--http-proxy --identity-label --ignorefile --iidfile --iidfile-raw --inherit-annotations --inherit-labels --ipc
--isolation --jobs --label --layer-label --layers --logfile --logsplit --manifest --memory -m --memory-swap
--metadata-file --net --network --no-cache --no-hostname --no-hosts --no-pivot --omit-history --os --os-feature
--os-version --output -o --pid --platform --pull --pull-always --pull-never --quiet -q --retry --retry-delay
--rewrite-timestamp --rm --rusage --rusage-logfile --runtime --runtime-flag --save-stages --sbom --sbom-image-output
--sbom-image-purl-output --sbom-merge-strategy --sbom-output --sbom-purl-output --sbom-scanner-command
--sbom-scanner-image --secret --security-opt --shm-size --sign-by --signature-policy --skip-unused-stages
--source-date-epoch --source-policy-file --squash --ssh --stage-labels --stdin --tag -t --target --timestamp
--tls-verify --transient-run-mounts --ulimit --unsetannotation --unsetenv --unsetlabel --userns --userns-gid-map
--userns-gid-map-group --userns-uid-map --userns-uid-map-user --uts --variant --volume -v
"""

COMMANDS = all_commands()
OURS = {name for option in (*COMMANDS["build"].options, *GLOBALS) for name in option.spellings}


@pytest.mark.parametrize("builder", [DOCKER, BUILDAH], ids=["docker", "buildah"])
def test_no_option_of_others_is_unknown(builder: str) -> None:
    assert [name for name in builder.split() if name not in OURS | {*HINTS, *SAME, *AS_ALWAYS}] == []


def test_the_tables_have_no_option_twice_and_none_of_ours() -> None:
    for table in (HINTS, SAME, AS_ALWAYS):
        assert OURS.isdisjoint(table)
    assert set(HINTS).isdisjoint({*SAME, *AS_ALWAYS})


def test_hints_name_only_options_and_commands_that_there_are() -> None:
    known = OURS | {name for command in COMMANDS.values() for option in command.options for name in option.spellings}
    foreign = {"--mount", "--device", "--call"}
    for hint in HINTS.values():
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", hint)) <= known | foreign, hint
        assert set(re.findall(r"`imagetool ([a-z]+)", hint)) <= set(COMMANDS), hint


@pytest.mark.parametrize("name", sorted(HINTS))
def test_an_option_that_is_not_offered_is_an_error_with_its_name_and_a_hint(tmp_path: Path, name: str) -> None:
    from imagetool.cli.typed import run_typed
    from imagetool.errors import UsageError

    with pytest.raises(UsageError) as refused:
        run_typed(["build", f"{name}=x" if name.startswith("--") else name, str(tmp_path)])
    assert f"build: there is no option {name!r}; {HINTS[name]}" == str(refused.value)


@pytest.mark.parametrize(
    ("others", "ours"),
    [
        (["--layers", "--rm=true", "--force-rm"], []),
        (["--pull-always"], ["--pull=always"]),
        (["--pull-never"], ["--pull", "never"]),
        (["--net", "none"], ["--network=none"]),
        (["--net=host"], ["--network", "host"]),
        (["--pull"], ["--pull=always"]),
        (["--platform", "linux/a", "--platform", "linux/b"], ["--platform=linux/a", "--platform=linux/b"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_meant_is_done(others: list[str], ours: list[str]) -> None:
    said = parse(["build", *ours, "."], find_command, GLOBALS)
    assert parse(in_our_words(["build", *others, "."]), find_command, GLOBALS).values == said.values


def test_what_is_always_done_cannot_be_turned_off(tmp_path: Path) -> None:
    done = imagetool("build", "--layers=false", tmp_path, root=tmp_path / "store", check=False)
    assert done.returncode == 2
    assert "there is no option '--layers'; that is done in any case" in done.stderr


def test_a_command_line_of_buildah_builds(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV a=1\n")
    args = ("build", "--layers", "--pull-never", "--net", "none", "--squash=false", "-t", "x", tmp_path)
    assert imagetool(*args, root=tmp_path / "store").stdout.startswith("sha256:")
    again = imagetool("build", "--pull", tmp_path, root=tmp_path / "store")
    assert again.stdout.startswith("sha256:")


def test_push_needs_a_name(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV a=1\n")
    done = imagetool("build", "--push", tmp_path, root=tmp_path / "store", check=False)
    assert done.returncode == 2
    assert "--push needs a --tag" in done.stderr


@pytest.mark.parametrize("command", ["from", "run"])
@pytest.mark.parametrize("name", sorted(_OF_CONTAINERS))
def test_what_others_say_of_containers_has_a_hint_there_too(command: str, name: str) -> None:
    assert hint_for(command, f"{name}=x") == HINTS[name]
    assert name not in {spelt for option in COMMANDS[command].options for spelt in option.spellings}
    assert hint_for(command, "--no-cache") == ""
