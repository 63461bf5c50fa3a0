# ruff: noqa: E501 a Dockerfile is one string
"""The rules of building, against buildah: the same Dockerfile gives the same tree and the same configuration.

Cases are numbered as the rules of `tests/integration/build/test_rules.py`. Several rules share a build, since each
of buildah's takes a second or two. What is known to differ stands in `DIFFERENCES` by the number of its rule, with
the reason; a difference that is not there fails, and so does one that is there and no longer is.
Rules that Debian's buildah does not know (heredocs, --link, --parents, --exclude, symbolic --chmod, replacement in
expansions) or that are of one builder only (output, cache, progress) are in `NOT_HERE`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagetool.api import Workplace, opened
from imagetool.image.image import Image, load
from imagetool.layer.merge import flatten
from tests.support.command import imagetool

pytestmark = [pytest.mark.root, pytest.mark.peer]

BASE = "localhost/rules"


@dataclass(frozen=True)
class Case:
    """One build: which rules it is for, the Dockerfile, the ignore file, and what both are told besides."""

    rules: tuple[int, ...]
    text: str
    ignore: str = ""
    flags: tuple[str, ...] = ()


CASES = {
    "parsing": Case(
        (1, 2, 3, 4, 5, 6),
        "# escape=`\n# plain\nFROM scratch\neNv a=b`\nc=`\n# no\n e=1\nENV d=back\\slash\n"
        'COPY --chown=1:2 ["spaced name", "/s p"]\nCOPY d/f /f\nCMD [\'a\']\nLABEL x="a b" y=\"c d\"\n',
    ),
    "continuations": Case(
        (2, 3), "FROM scratch\nENV a=1 \\\n# comment\n\n  # another\n  b=2 \\ \n c=3\nENV d=1\\\n2\nCMD x \\\\\n"
    ),
    "variables": Case(
        (7, 11, 12, 14),
        "FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV old one two  three\n"
        "ENV q=\"a b\" s='$abc' t=\\$abc u=${none:-w} v=x${none}y w=${abc:+set} n=\"a\\\"b\"\n"
        "ARG v1=arg\nENV v1=env seen=$v1\nENV p=80 r=7 k=9\nUSER $r\nEXPOSE $p\nSTOPSIGNAL $k\nVOLUME /v$r\n"
        "WORKDIR /w$r\nLABEL l=$abc\nCMD $abc\n",
    ),
    "arguments": Case(
        (13, 15, 16),
        f"ARG B={BASE}\nARG V=$B-1\nFROM $B AS one\nENV one=$V\nARG V\nENV two=$V\nARG W=d\nENV three=$W\n"
        "FROM one\nCOPY --from=0 /etc/passwd /p\nCOPY --from=one /etc/group /g\n",
        flags=("--build-arg", "W=given"),
    ),
    "target": Case((16, 17), "FROM scratch AS unused\nFROM scratch AS want\nENV a=1\nFROM scratch\n", flags=("--target", "want")),
    "health": Case((8, 41), "FROM scratch\nHEALTHCHECK --interval=5s --retries=3 --timeout=1m CMD test x\n"),
    "no health": Case((8,), 'FROM scratch\nHEALTHCHECK CMD ["x", "y"]\nHEALTHCHECK NONE\n'),
    "stages": Case(
        (18, 19),
        f"FROM {BASE} AS first\nENV e=1\nLABEL l=1\nUSER 7\nWORKDIR /w\nONBUILD ENV t=1\nEXPOSE 1\nENTRYPOINT [\"e\"]\nCMD c\n"
        "FROM first\nLABEL m=2\nENTRYPOINT [\"f\"]\n",
    ),
    "configuration": Case(
        (38, 39, 40, 41),
        "FROM scratch\nMAINTAINER me\nCMD one\nCMD [\"two\", \"2\"]\nENTRYPOINT three four\nCMD five\nWORKDIR a\nWORKDIR b/../c/\n"
        "EXPOSE 80 443/tcp 53/udp 8000-8002\nLABEL a=1 b=1\nLABEL b=2\nENV PATH=/x\nSTOPSIGNAL SIGQUIT\n"
        "VOLUME /v /w\nVOLUME [\"/x y\"]\nSHELL [\"/s\", \"-x\"]\nONBUILD RUN x\nONBUILD COPY a /b\n",
    ),
    "sources": Case(
        (20, 21, 22, 24, 25),
        f"FROM {BASE}\nCOPY ../d/f /20a\nCOPY /d/f /20b\nCOPY d /21a\nCOPY d/ /21b\nCOPY d/. /21c/\nCOPY d/f /21d/\n"
        "COPY d/f /there\nCOPY d/f d/l /21e/\nWORKDIR /w\nCOPY d/f .\nCOPY d/f p/q/\nCOPY d/f /to/\nCOPY top /24\n"
        "COPY *.x none*.z /25a/\nCOPY [^d]*.x /25b/\nCOPY d/?* /25c/\n",
    ),
    "places": Case(
        (22, 23, 26, 27),
        f"FROM {BASE}\nUSER 5\nCOPY d/f /26a\nCOPY --chown=user d /26b\nCOPY --chown=1:adm d/f /26c\nCOPY --chown=5 d/f /26d\n"
        "COPY d /there\nCOPY modes /27a\nCOPY --chmod=640 modes/special /27b\nCOPY --chown=user:adm d/f /new/deep/f\n",
    ),
    "between stages": Case(
        (26, 44),
        f"FROM {BASE} AS s\nCOPY --chown=101:201 d /o/sub\nFROM scratch\nCOPY --from=s /o /dir\nCOPY --from=s /o/sub/f /file\n"
        "COPY --from=s --chown=3:4 /o /owned\nCOPY --from=s /hard /hard/\n",
    ),
    "archives": Case(
        (28,),
        f"FROM {BASE}\nADD packed.bin /a\nADD packed.tar.xz /b/\nADD fake.tar.gz /c/\nADD d/f /d\nADD --chown=3:4 packed.bin /e\n",
    ),
    "ignored": Case((29,), "FROM scratch\nCOPY . /\n", "# no\n/d\n!d/f\n**/b.x\nfake*\n*.bin\n*.xz\nspaced*\nmodes\n*-ignore\n"),
    "containers": Case(
        (32, 33, 34, 36, 37, 39),
        f"FROM {BASE}\nSHELL [\"/bin/sh\", \"-ec\"]\nENTRYPOINT [\"/never\"]\nARG V=arg\nENV E=env\n"
        "RUN echo $V $E $HOME $(umask) $(pwd) $- | sed 's/[a-z]*$//' > /33 && wc -c < /dev/stdin >> /33\n"
        'RUN ["/bin/sh", "-c", "echo exec > /32"]\n'
        "RUN mkdir -m 1777 /out\nUSER user\nRUN id -u > /out/u1; id -g >> /out/u1; echo $HOME >> /out/u1\n"
        "USER 4242\nRUN id -u > /out/u2; id -g >> /out/u2\nUSER user:adm\nRUN id -g > /out/u3\nUSER 0\n"
        "RUN --mount=type=bind,source=d,target=/m cat /m/f > /36 && ! echo > /m/new\n"
        "VOLUME /vol\nRUN mkdir -p /vol && echo kept > /vol/f\nWORKDIR /made\nRUN pwd > cwd\n",
        flags=("--network", "host"),
    ),
    "changes": Case(
        (44, 45),
        f"FROM {BASE}\nRUN rm /there/old && rm -r /gone && mkdir /gone && echo 2 > /gone/new && rm -r /swap && echo > /swap \\\n"
        " && rm /file && mkdir /file && echo 1 > /l1 && ln /l1 /l2 && ln -s /l1 /l3 && mkfifo /fifo \\\n"
        " && chmod 4755 /l1 && chown 3:4 /there && touch -d '2001-02-03 04:05:06' /old\nRUN rm /l3\n",
        flags=("--network", "host"),
    ),
}  # fmt: skip

#: Both refuse these.
REFUSED = {
    4: ("FRM scratch\n", "# only\n"),
    5: ("FROM scratch\nCOPY --chwn=1 d/f /\n",),
    6: ('FROM scratch\nCOPY "spaced name" /x\n',),
    7: ("FROM scratch\nENV a=1 b\n", "FROM scratch\nENV a\n"),
    8: ("FROM scratch\nHEALTHCHECK NONE x\n",),
    11: ('FROM scratch\nENV a="${none:?is needed}"\n',),
    16: ("FROM scratch AS a\nCOPY --from=1 /x /x\n",),
    17: ('FROM "${none}"\n',),
    19: ("FROM scratch\nONBUILD ONBUILD ENV a=1\n", "FROM scratch\nONBUILD FROM scratch\n"),
    20: ("FROM scratch\nCOPY http://127.0.0.1:1/x /x\n",),
    25: ("FROM scratch\nCOPY missing /\n",),
    26: (f"FROM {BASE}\nCOPY --chown=nobody d/f /\n",),
    27: ("FROM scratch\nCOPY --chmod=99999 d/f /\n",),
    32: (f"FROM {BASE}\nRUN\n", f"FROM {BASE}\nRUN exit 7\n"),
    34: (f"FROM {BASE}\nUSER nobody\nRUN true\n",),
    51: ("FROM scratch\nCOPY up/secret /x\n", "FROM scratch\nCOPY abs /x\n"),
}

NOT_HERE = {
    # Of 8, buildah takes an interval of a microsecond; of 16, the name of a stage that begins with a digit.
    9: "heredocs came with buildah 1.33",
    10: "heredocs came with buildah 1.33",
    30: "COPY --parents came with buildah 1.36",
    31: "COPY --link came with buildah 1.40",
    35: "what a container finds mounted and leaves is a difference by design; see `_LEFT`",
    42: "history is told in other words by each builder",
    43: "times are clamped here by default (docs/adr/0003), and are the build's there",
    46: "digests of compressed layers depend on the compressor",
    47: "the cache is each builder's own",
    48: "the cache is each builder's own",
    49: "the cache is each builder's own",
    50: "the words of failures are each builder's own; that there is one is in REFUSED",
}


@dataclass(frozen=True)
class Difference:
    """A line of a comparison, as a pattern, that must be there in each of the cases: `what: ours | theirs`."""

    rule: int
    cases: tuple[str, ...]
    line: str
    reason: str


_SCRATCH = ("parsing", "continuations", "target", "health", "no health", "between stages", "ignored")
DIFFERENCES = (
    Difference(
        1,
        ("parsing",),
        r"Env: .*=back\\\\slash.* \| .*=backslash",
        "with another escape a backslash is a character like others",
    ),
    Difference(
        2,
        ("continuations",),
        r"Cmd: .*x \\\\\\\\'\] \| .*x \\\\'\]",
        "the escape before an escape stays, as with BuildKit",
    ),
    Difference(18, _SCRATCH, r"WorkingDir: / \| None", "BuildKit's scratch begins at /, the classic builder's nowhere"),
    Difference(27, ("places",), "27a/special: .*0o6751.*0o751", "buildah 1.28 takes the setuid and setgid bits away"),
    Difference(
        28,
        ("archives",),
        "e/in(/[fl])?: .* 3, 4, .* 7, 8, ",
        "--chown is for an archive's files, too, as with BuildKit",
    ),
    Difference(
        37, ("containers",), r"vol/f: .*kept.* \| None", "the classic builder forgets what RUN writes below a VOLUME"
    ),
    Difference(
        38,
        ("parsing", "continuations", "variables", "stages", "configuration"),
        r"ArgsEscaped: True \| None",
        "BuildKit says of a CMD in shell form that it is escaped",
    ),
    Difference(
        40,
        ("configuration",),
        r"ExposedPorts: .*8001/tcp.* \| .*8000-8002/tcp",
        "a range is spelled out, as with BuildKit",
    ),
)

#: What buildah leaves of the mounts of a RUN: rule 35 has ours, which are none.
_LEFT = re.compile(r"(dev|proc|sys|run)(/.*)?$|etc/(hostname|hosts|resolv\.conf)$|run/.*|m$|vol$")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with our store and buildah's, both with the base, and a context."""
    if not shutil.which("buildah"):
        pytest.skip("buildah is not installed")
    place = tmp_path_factory.mktemp("rules")
    imagetool("base", "busybox", root=place / "ours")
    _make_context(place / "context", place)
    (place / "base").mkdir()
    (place / "base/Dockerfile").write_text(
        "FROM busybox\nRUN printf 'root:x:0:0:root:/root:/bin/sh\\nuser:x:101:201::/home/user:/bin/sh\\n' > /etc/passwd && "
        "printf 'root:x:0:\\nadm:x:4:\\nusers:x:201:\\n' > /etc/group && mkdir -m 700 /there && chown 9:9 /there && "
        "echo old > /there/old && ln -s /there /to && mkdir -p /gone/sub /swap/sub && echo > /gone/sub/f && echo > /file && "
        "mkdir /hard && echo h > /hard/a && ln /hard/a /hard/b\n"
        'CMD ["basecmd"]\nLABEL base=1\nENV A=1\n'
    )
    imagetool("build", "--network", "none", "-t", BASE, place / "base", root=place / "ours")
    imagetool("copy", BASE, f"oci-archive:{place}/base.tar:{BASE}", root=place / "ours")
    buildah(place, "pull", "-q", f"oci-archive:{place}/base.tar:{BASE}")
    return place


def _make_context(context: Path, place: Path) -> None:
    (context / "d/sub").mkdir(parents=True)
    (context / "modes").mkdir()
    for name in ("d/f", "d/sub/g", "a.x", ".b.x", "c.y", "spaced name", "modes/special"):
        (context / name).write_text(f"{name}\n")
    (context / "d/l").symlink_to("f")
    (context / "top").symlink_to("d/f")
    (context / "up").symlink_to("..")
    (place / "secret").write_text("host")
    (context / "abs").symlink_to(place / "secret")
    os.chmod(context / "modes/special", 0o6751)
    os.chmod(context / "d/sub", 0o711)
    os.mkdir(context / "modes/sticky", 0o755)
    os.chmod(context / "modes/sticky", 0o1750)
    for name, mode in (("packed.bin", "w:gz"), ("packed.tar.xz", "w:xz")):
        with tarfile.open(context / name, mode) as tar:  # type: ignore[call-overload]
            for path, kind in (("in", tarfile.DIRTYPE), ("in/f", tarfile.REGTYPE), ("in/l", tarfile.SYMTYPE)):
                member = tarfile.TarInfo(path)
                member.type, member.mode, member.uid, member.gid = kind, 0o750, 7, 8
                member.linkname = "f" if kind == tarfile.SYMTYPE else ""
                member.size = 3 if kind == tarfile.REGTYPE else 0
                tar.addfile(member, io.BytesIO(b"in\n"[: member.size]))
    (context / "fake.tar.gz").write_text("no archive\n")


def buildah(place: Path, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    storage = ["--root", place / "theirs", "--runroot", place / "run", "--storage-driver", "vfs"]
    command = ["buildah", *map(str, storage), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if check:
        assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done


def _write(place: Path, text: str, ignore: str) -> Path:
    file = place / "Dockerfile"
    file.write_text(text)
    (place / "Dockerfile.ignore").write_text(ignore)
    (place / "context/.dockerignore").write_text(ignore)
    return file


def _ours(place: Path, case: Case, file: Path) -> Image:
    flags = [*case.flags, "--tag", "x", "--file", file]
    imagetool("build", *flags, place / "context", root=place / "ours")
    with opened("x", Workplace(place / "ours")) as (store, root):
        return load(store, root)


def _theirs(place: Path, case: Case, file: Path, out: Path) -> Image:
    flags = ["--isolation", "chroot", "--format", "docker", "-q", "-t", "x", "--file", file, *case.flags]
    buildah(place, "build", *flags, place / "context")
    buildah(place, "push", "-q", "x", f"dir:{out}")
    with opened(f"dir:{out}", Workplace(place / "ours")) as (store, root):
        return load(store, root)


def _tree(image: Image) -> dict[str, tuple[Any, ...]]:
    found = {}
    for entry, content in flatten(image.openers()):
        data = b"".join(content) if entry.kind == "file" else b""
        linkname = entry.linkname if entry.kind in ("symlink", "link") else b""
        kind = entry.kind
        found[entry.name.decode()] = (kind, oct(entry.mode), entry.uid, entry.gid, linkname, data[:200])
    found.pop(".", None)
    return {name: value for name, value in found.items() if not _LEFT.match(name)}


def _config(image: Image) -> dict[str, Any]:
    known = json.loads(image.config.raw)
    about: dict[str, Any] = {"author": known.get("author", "")}
    for name, value in known["config"].items():
        if value and name not in ("Hostname", "Image", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr"):
            about[name] = value
    about.get("Labels", {}).pop("io.buildah.version", None)
    if not about.get("Labels"):
        about.pop("Labels", None)
    return about


def _compared(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    names = sorted({*ours, *theirs})
    return [f"{name}: {ours.get(name)} | {theirs.get(name)}" for name in names if ours.get(name) != theirs.get(name)]


@pytest.mark.parametrize("name", CASES)
def test_the_same_tree_and_configuration(stage: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    file = _write(stage, case.text, case.ignore)
    ours, theirs = _ours(stage, case, file), _theirs(stage, case, file, tmp_path / "out")
    lines = _compared(_tree(ours), _tree(theirs)) + _compared(_config(ours), _config(theirs))
    expected = [difference for difference in DIFFERENCES if name in difference.cases]
    for difference in expected:
        found = [line for line in lines if re.match(difference.line, line)]
        assert found, f"rule {difference.rule} no longer differs: {difference.line}\n" + "\n".join(lines)
        lines = [line for line in lines if line not in found]
    assert lines == []


@pytest.mark.parametrize("rule", REFUSED)
def test_both_refuse(stage: Path, rule: int) -> None:
    for text in REFUSED[rule]:
        file = _write(stage, text, "")
        done = imagetool(
            "build", "--network", "host", "--file", file, stage / "context", root=stage / "ours", check=False
        )
        assert done.returncode in (1, 2, 3, 5), text
        words = ("build", "-q", "--isolation", "chroot", "--format", "docker", "--file", file, stage / "context")
        assert buildah(stage, *words, check=False).returncode != 0, text


def test_every_rule_is_compared_or_says_why_not() -> None:
    compared = {rule for case in CASES.values() for rule in case.rules} | {*REFUSED}
    assert compared.isdisjoint({*NOT_HERE} - {50})
    assert compared | {*NOT_HERE} == set(range(1, 52))
    assert all(name in CASES for difference in DIFFERENCES for name in difference.cases)
