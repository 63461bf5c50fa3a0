"""What docker, podman, buildah, skopeo, crane and umoci call our commands and options: ours, or what to type instead.

`habits` has the options of `build`; this has all else. Only command lines that are wrong get here. What is the same
thing in other words is done; what is not the same, or not here, is an error with a hint, so that nobody gets what
they did not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

#: Other words for a command of ours, the longest first where one begins another.
COMMANDS: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    ("bud",): ("build",),
    ("buildx", "build"): ("build",),
    ("buildx", "b"): ("build",),
    ("builder", "build"): ("build",),
    ("buildx", "prune"): ("cache", "prune"),
    ("builder", "prune"): ("cache", "prune"),
    ("buildx", "du"): ("cache", "ls"),
    ("image", "build"): ("build",),
    ("image", "ls"): ("images",),
    ("image", "list"): ("images",),
    ("image", "rm"): ("rmi",),
    ("image", "push"): ("push",),
    ("image", "pull"): ("pull",),
    ("image", "tag"): ("tag",),
    ("image", "save"): ("save",),
    ("image", "load"): ("load",),
    ("image", "history"): ("history",),
    ("image", "inspect"): ("inspect",),
    ("image", "diff"): ("diff",),
    ("container", "run"): ("run",),
    ("container", "ls"): ("containers",),
    ("container", "list"): ("containers",),
    ("container", "rm"): ("rm",),
    ("list-tags",): ("tags",),
    ("cp",): ("copy",),
    ("ps",): ("containers",),
    ("unmount",): ("umount",),
    ("info",): ("doctor",),
    ("validate",): ("verify",),
}

_BACKGROUND: Final = "a container of `imagetool run` ends with its command: nothing runs in the background"
_PRUNE: Final = "`imagetool cache prune` empties the cache, `imagetool rmi` removes images"
_INDEX: Final = "`imagetool build --platform linux/amd64,linux/arm64` makes one, `imagetool inspect --raw` shows one"
_EDIT: Final = "`imagetool from`, `add`, `config`, `commit` change an image, `imagetool unpack` and `repack` its files"
_FILES: Final = (
    "`imagetool unpack NAME DIRECTORY` gives the files, `imagetool build --output type=tar,dest=FILE` a tarball"
)
_LAYOUT: Final = "a layout is made by what writes to it: `imagetool copy NAME oci:DIR:TAG`"
_SIGN: Final = "images are not signed"
_IMAGETOOLS: Final = "`imagetool inspect --raw docker://NAME` shows an index, `imagetool copy` copies one"

#: What to type instead of a command that is not here.
COMMAND_HINTS: Final[Mapping[str, str]] = {
    "image": "`imagetool images` lists them; most commands are about images",
    "container": "`imagetool run` runs one, `imagetool containers` lists those that images are built in",
    "buildx": "`imagetool build` builds; " + _IMAGETOOLS,
    "builder": "there is no daemon and no builder; `imagetool build` builds",
    "bake": "`imagetool build --target` builds one target of a file",
    "compose": "`imagetool build` builds one image",
    "manifest": _INDEX,
    "index": _INDEX,
    "import": "`imagetool base FILE.tar --tag NAME` makes an image of a root filesystem's tarball",
    "export": _FILES,
    "system": _PRUNE,
    "prune": _PRUNE,
    "exec": "`imagetool run NAME COMMAND` runs a command in an image or in a working container",
    "create": "`imagetool from NAME` makes a working container, `imagetool run` runs one and forgets it",
    "commands": "`imagetool --help` lists them",
    "digest": "`imagetool inspect NAME` tells the digest, for a registry's image of docker://NAME",
    "catalog": "`imagetool tags NAME` lists a repository; a registry's repositories are not listed",
    "search": "`imagetool tags NAME` lists a repository; registries are not searched",
    "sync": "`imagetool tags` lists what a repository has, `imagetool copy` copies one image",
    "serve": "`imagetool registry serve` runs a registry",
    "gc": "`imagetool registry gc` is for a registry's blobs; the local store's go with `imagetool rmi`",
    "flatten": "`imagetool squash` makes one layer of several",
    "append": _EDIT,
    "mutate": _EDIT,
    "insert": _EDIT,
    "rebase": "build it again on the new base: `imagetool build --pull`",
    "rename": "`imagetool tag` gives an image one more name, `imagetool rmi` takes one away",
    "untag": "`imagetool rmi NAME` takes a name away, and the image with the last one",
    "remove": "`imagetool rmi` removes images, `imagetool rm` working containers",
    "init": _LAYOUT,
    "new": _LAYOUT + "; `imagetool from scratch` begins an image",
    "stat": "`imagetool history NAME` tells how an image was made, `imagetool inspect` what it has",
    "raw": "`imagetool unpack NAME DIRECTORY` gives the files of an image",
    "auth": "`imagetool login` keeps a user name and password",
    "sign": _SIGN,
    "trust": _SIGN,
    "standalone-sign": _SIGN,
    "standalone-verify": _SIGN,
    "start": _BACKGROUND,
    "stop": _BACKGROUND,
    "restart": _BACKGROUND,
    "kill": _BACKGROUND,
    "logs": _BACKGROUND,
    "attach": _BACKGROUND,
    "wait": _BACKGROUND,
    "top": _BACKGROUND,
    "stats": _BACKGROUND + "; --stats tells what it used",
    "port": _BACKGROUND,
}

_CREDS: Final = "`imagetool login` keeps a user name and password"
_JSON: Final = "--json prints all there is: | jq -r '.[].name'"
_TAGS: Final = "`imagetool tags NAME` lists them; name each"
_PLATFORM: Final = "--platform os/arch[/variant] says it"
_CERTS: Final = "certificates are read from certs.d/HOST below /etc/containers and /etc/docker"
_TLS: Final = "--tls-verify=false holds for all registries of a command line"
_LEVEL: Final = "the level stands after the codec: --compression gzip:9"
_BYTES: Final = "every byte stays as it is; a manifest is not rewritten into another format"
_DIGEST: Final = "stdout carries the digest: > FILE"
_RETRY: Final = "requests that failed in passing are always made again"
_AUTHFILE: Final = "--authfile FILE, or REGISTRY_AUTH_FILE, holds for both"
_NOTHING_SIGNED: Final = "images are not signed, and signatures not looked for"
_STDERR: Final = "--progress plain tells every step, --progress json tells programs"

_REGISTRY: Final = {
    "--creds": _CREDS,
    "--username": _CREDS,
    "--password": _CREDS,
    "--cert-dir": _CERTS,
    "--insecure": "--tls-verify=false does it",
    "--sign-by": _SIGN,
    "--sign-passphrase-file": _SIGN,
    "--signature-policy": _NOTHING_SIGNED,
    "--disable-content-trust": _NOTHING_SIGNED,
    "--retry": _RETRY,
    "--retry-times": _RETRY,
    "--retry-delay": _RETRY,
    "--decryption-key": "encrypted images are not read",
    "--encryption-key": "images are not encrypted",
    "--digestfile": _DIGEST,
    "--all-tags": _TAGS,
    "--arch": _PLATFORM,
    "--os": _PLATFORM,
    "--variant": _PLATFORM,
    "--override-arch": _PLATFORM,
    "--override-os": _PLATFORM,
    "--override-variant": _PLATFORM,
    "--compression-level": _LEVEL,
    "--format": _BYTES,
    "-f": _BYTES,
}

#: What to type instead of an option that a command does not have; "" is what may stand before the command.
OPTION_HINTS: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        "--debug": _STDERR,
        "-D": _STDERR,
        "-d": _STDERR,
        "--verbose": _STDERR,
        "--log-level": _STDERR,
        "-l": _STDERR,
        "-v": "--version tells the version; " + _STDERR,
        "--config": "--authfile FILE names what credentials are taken from",
        "--context": "there is no daemon to talk to",
        "-c": "there is no daemon to talk to",
        "--host": "there is no daemon to talk to",
        "-H": "there is no daemon to talk to",
        "--policy": _NOTHING_SIGNED,
        "--runroot": "--root DIR is all there is",
        "--storage-driver": "--root DIR is all there is",
        "--storage-opt": "--root DIR is all there is",
        "--tmpdir": "--root DIR holds what is in the making, too",
        "--registries-conf": "names without a registry are docker.io's",
        "--command-timeout": "timeout(1) ends a command: timeout 60 imagetool …",
        "--insecure": "--tls-verify=false does it",
        "--platform": "--platform stands after the command",
        **dict.fromkeys(("--override-arch", "--override-os"), _PLATFORM + ", after the command"),
    },
    "pull": {**_REGISTRY, "-a": _TAGS, "--policy": "a pull asks the registry in any case"},
    "push": {**_REGISTRY, "-a": _TAGS},
    "copy": {
        **_REGISTRY,
        "--multi-arch": "all images of an index are copied, or with --platform one",
        "--src-tls-verify": _TLS,
        "--dest-tls-verify": _TLS,
        "--src-authfile": _AUTHFILE,
        "--dest-authfile": _AUTHFILE,
        **{f"--{end}-creds": _CREDS for end in ("src", "dest")},
        **{f"--{end}-username": _CREDS for end in ("src", "dest")},
        **{f"--{end}-password": _CREDS for end in ("src", "dest")},
        **{f"--{end}-registry-token": _CREDS for end in ("src", "dest")},
        **{f"--{end}-no-creds": "--authfile of an empty file gives none" for end in ("src", "dest")},
        **{f"--{end}-cert-dir": _CERTS for end in ("src", "dest")},
        **{f"--{end}-daemon-host": "`docker save NAME | imagetool load` takes it" for end in ("src", "dest")},
        "--dest-compress": "--compression gzip does it",
        "--dest-compress-level": _LEVEL,
        "--dest-decompress": "--compression none does it",
        "--dest-force-compress-format": "--compression makes all layers anew",
        "--additional-tag": "`imagetool tag` gives one more name",
        "--sign-by-sigstore": _SIGN,
        "--sign-by-sigstore-private-key": _SIGN,
        "--sign-identity": _SIGN,
    },
    "images": {
        "--digests": "--json tells digests",
        "--format": _JSON,
        "--filter": "name a repository: imagetool images NAME; " + _JSON,
        "-f": "name a repository: imagetool images NAME; " + _JSON,
        "--sort": _JSON,
        "--history": "`imagetool history NAME` tells how an image was made",
    },
    "inspect": {
        "--format": "it prints JSON: | jq -r .digest",
        "-f": "it prints JSON: | jq -r .digest",
        "--type": "it finds out whether a name is an image's or a working container's",
        "-t": "it finds out whether a name is an image's or a working container's",
        "--no-tags": "tags are not listed but by `imagetool tags`",
        "-n": "tags are not listed but by `imagetool tags`",
        "--creds": _CREDS,
    },
    "history": {
        "--quiet": "--json tells all there is",
        "-q": "--json tells all there is",
        "--format": "it prints JSON with --json: | jq -r '.[].created_by'",
        "--human": "--json tells sizes in bytes",
        "-H": "--json tells sizes in bytes",
    },
    "rmi": {
        "--prune": "`imagetool rmi $(imagetool images --quiet)` or --all remove what has no name, too",
        "-p": "`imagetool rmi $(imagetool images --quiet)` or --all remove what has no name, too",
        "--no-prune": "a layer that another image has stays in any case",
    },
    "save": {
        "--compress": "pipe it: imagetool save NAME | gzip > FILE",
        "--quiet": "--progress quiet does it",
        "-q": "--progress quiet does it",
        "--platform": "`imagetool copy --platform os/arch NAME docker-archive:FILE:NAME` writes that image",
    },
    "load": {"--platform": "what the archive has is loaded"},
    "tag": {"--force": "a name that is there is moved in any case", "-f": "a name that is there is moved in any case"},
    "run": {
        "--detach": _BACKGROUND,
        "-d": _BACKGROUND,
        "--restart": _BACKGROUND,
        "--detach-keys": _BACKGROUND,
        "--name": "nothing of a container is kept that a name could find; --hostname is its name for itself",
        "--publish": "--network host lets it listen on this machine",
        "-p": "--network host lets it listen on this machine",
        "--publish-all": "--network host lets it listen on this machine",
        "-P": "--network host lets it listen on this machine",
        "--net": "--network says it",
        "--privileged": "--cap-add ALL --security-opt seccomp=unconfined --userns host gives all there is",
        "--pull": "`imagetool pull NAME` before it",
        "--init": "a process that collects others is there in any case",
        "--device": "RUN --device of a build is all there is",
        "--gpus": "RUN --device of a build is all there is",
        "--label": "nothing of a container is kept that a label could find",
        "-l": "nothing of a container is kept that a label could find",
        "--cidfile": "nothing of a container is kept that an ID could find",
        "--group-add": "--user and the image's /etc/group say the groups",
        "--sysctl": "system settings are this machine's",
        "--no-healthcheck": "health is not checked",
        "--volumes-from": "--volume HOST:CONTAINER names a directory",
        "--env-host": "--env NAME hands one variable on",
        "--memory-reservation": "--memory is the bound",
        "-c": "--cpu-shares says it",
        "--quiet": "--progress quiet does it",
        "-q": "--progress quiet does it",
        "--sig-proxy": "signals to imagetool go on to the container",
        "--stop-signal": "signals to imagetool go on to the container",
        "--stop-timeout": "--timeout ends a container; a signal that comes again and again kills it",
        **dict.fromkeys(("--attach", "-a"), "output goes to stdout and stderr, and -i hands stdin on"),
        **dict.fromkeys(("--log-driver", "--log-opt"), "output goes to stdout and stderr"),
        **dict.fromkeys(("--annotation", "--label-file"), "nothing of a container is kept that could have them"),
        **dict.fromkeys(("--cpu-rt-period", "--cpu-rt-runtime"), "--cpus says how much time a container has"),
        **dict.fromkeys(("--device-cgroup-rule",), "RUN --device of a build is all there is"),
        **dict.fromkeys(
            (
                *("--blkio-weight", "--blkio-weight-device", "--device-read-bps", "--device-read-iops"),
                *("--device-write-bps", "--device-write-iops"),
            ),
            "the speed of disks is not bounded",
        ),
        "--disable-content-trust": _NOTHING_SIGNED,
        "--domainname": "--hostname may have dots",
        "--expose": "--network host lets it listen on this machine",
        **dict.fromkeys(
            (
                *("--health-cmd", "--health-interval", "--health-retries", "--health-start-interval"),
                *("--health-start-period", "--health-timeout"),
            ),
            "health is not checked",
        ),
        **dict.fromkeys(
            ("--ip", "--ip6", "--link-local-ip", "--mac-address", "--network-alias"),
            "--network is default, host or none; addresses are its own",
        ),
        "--link": "--add-host gives an address a name",
        "--kernel-memory": "--memory counts the kernel's for it, too",
        "--memory-swappiness": "--memory-swap bounds swap",
        **dict.fromkeys(("--oom-kill-disable", "--oom-score-adj"), "what needs more than --memory is ended"),
        "--storage-opt": "what a container writes is bounded by the disk",
        "--use-api-socket": "there is no daemon",
        "--volume-driver": "--volume HOST:CONTAINER names a directory",
    },
    "login": {
        "--get-login": "`imagetool login` keeps names where docker and podman do, in auth.json or config.json",
        "--verbose": "it tells what it does",
        "-v": "it tells what it does",
        "--cert-dir": _CERTS,
        "--insecure": "--tls-verify=false does it",
    },
    "logout": {"--all": "name each registry", "-a": "name each registry"},
    "unpack": {"--image": "name the image: imagetool unpack oci:DIR:TAG DIRECTORY"},
    "repack": {"--image": "name the image last: imagetool repack DIRECTORY oci:DIR:TAG"},
}  # fmt: skip

#: Options of others that say what is done in any case, by command.
AS_ALWAYS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset(("--insecure-policy",)),
    "copy": frozenset(("--all", "-a", "--preserve-digests", "--remove-signatures", "--insecure-policy")),
    "push": frozenset(("--remove-signatures",)),
    "images": frozenset(("--all", "-a")),
    "containers": frozenset(("--all", "-a")),
    "save": frozenset(("--multi-image-archive", "-m")),
}

#: Other words for an option, by command.
SAME: Final[Mapping[str, Mapping[str, str]]] = {
    "copy": {"--dest-compress-format": "--compression"},
    "push": {"--compression-format": "--compression"},
    "images": {"--format=json": "--json"},
    "history": {"--format=json": "--json"},
    "save": {"--format=docker-archive": "--format=docker", "--format=oci-archive": "--format=oci"},
}

#: Options before a command that take a value.
_VALUED: Final = ("--root", "--authfile", "--limit")


def translated(args: Sequence[str]) -> list[str]:
    """Return a command line with the commands and options of others in our words; the rest stays as it is."""
    at = _command_at(args)
    words = _without(args[:at], AS_ALWAYS[""])
    if args[at : at + 1] == ["help"]:
        return [*words, *args[at + 1 : at + 2], "--help"]
    known = next((key for key in COMMANDS if tuple(args[at : at + len(key)]) == key), None)
    command = list(COMMANDS[known]) if known else list(args[at : at + 1])
    rest = args[at + len(known or command) :]
    if not command:
        return [*words, *rest]
    if known == ("cp",) and any(":" in text and "/" in text.partition(":")[2] for text in rest):
        return list(args)  # docker's cp, of files of a container
    return [*words, *command, *_options(command[0], rest)]


def _command_at(args: Sequence[str]) -> int:
    """Return where the command stands, behind the global options."""
    at = 0
    while at < len(args) and args[at].startswith("-") and args[at] != "--":
        at += 2 if args[at] in _VALUED else 1
    return at


def _options(command: str, rest: Sequence[str]) -> list[str]:
    """Put options into our words; what stands behind two dashes is none."""
    same = SAME.get(command, {})
    found: list[str] = []
    end = rest.index("--") if "--" in rest else len(rest)
    words = iter(_without(rest[:end], AS_ALWAYS.get(command, frozenset())))
    for text in words:
        name, equals, value = text.partition("=")
        whole = text
        if name.startswith("--") and not equals and any(known.startswith(f"{name}=") for known in same):
            text = whole = f"{name}={next(words, '')}"
        if whole in same:
            text = same[whole]
        elif name in same:
            text = same[name] + equals + (value if equals else "")
        found.append(text)
    return [*found, *rest[end:]]


def _without(args: Sequence[str], always: frozenset[str]) -> list[str]:
    return [text for text in args if text.removesuffix("=true") not in always]


def command_hint(name: str) -> str:
    """Return what to type instead of a command; "" for one that nobody has."""
    return COMMAND_HINTS.get(name, "")


def option_hint(command: str, option: str) -> str:
    """Return what to type instead of an option that a command of ours does not have; "" for one that nobody has."""
    return OPTION_HINTS.get(command, {}).get(option.partition("=")[0], "")
