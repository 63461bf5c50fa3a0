"""Options of docker build and buildah build that `imagetool build` does not have: what is meant, or what to do instead.

Nothing that others' command lines say is passed over: an option is ours, or is said in our words
(`SAME`, `AS_ALWAYS`), or is an error with a hint (`HINTS`). Only command lines that are wrong get here.

Source: docker buildx build reference; buildah-build(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from imagetool.cli.idioms import option_hint, translated

#: Other words for an option of ours, or for one with a value.
SAME: Final = {
    "--net": "--network",
    "--pull-always": "--pull=always",
    "--pull-never": "--pull=never",
}
#: What is done in any case; only the opposite would be something else.
AS_ALWAYS: Final = frozenset(("--layers", "--rm", "--force-rm", "--skip-unused-stages"))

_STORE = "the image is in the local store already"
_STEPS = "every step that makes a layer does so, and is cached"
_CPUS = "--cpus says how many processors' time a step may use"
_ID_MAPS = "--userns auto maps the ids of a step to nobody's"
_ATTEST = "no attestations are made"
_REPORT = "--progress json and --metadata-file tell programs what was done"
_AFTERWARDS = "`imagetool copy` and `config` change an image afterwards"

#: What to do instead, for each that is not offered.
HINTS: Final = {
    # docker buildx build
    "--attest": _ATTEST,
    "--builder": "there is no daemon and no builder to choose",
    "--call": "--check is what --call=check does",
    "--cgroup-parent": "--memory, --cpus and --pids-limit bound a step",
    "--cpu-period": _CPUS,
    "--cpu-quota": _CPUS,
    "--cpuset-mems": "--cpuset-cpus says which processors a step may use",
    "--debug": "--keep-on-failure and `imagetool debug` look into a step that failed",
    "--load": f"{_STORE}; `imagetool save NAME -o FILE` writes what docker load reads",
    "--policy": "name bases by digest to pin them",
    "--provenance": _ATTEST,
    "--sbom": _ATTEST,
    "--compress": "a context is read where it is; it is sent nowhere",
    "--disable-content-trust": "name bases by digest to pin them",
    # buildah build
    "--all-platforms": "name them: --platform linux/amd64,linux/arm64",
    "--arch": "--platform os/arch[/variant] says it",
    "--blob-cache": "blobs are kept in the local store",
    "--build-arg-file": "read it in the shell: --build-arg NAME=VALUE for each line",
    "--cache-ttl": "`imagetool cache prune` empties the cache",
    "--cert-dir": "certificates are read from certs.d/HOST below /etc/containers and /etc/docker",
    "--cgroupns": "a step sees no control groups",
    "--compat-volumes": "what steps write below a VOLUME is kept",
    "--cpp-flag": "run the preprocessor before: cpp -E -P -traditional FILE | imagetool build --file - …",
    "--created-annotation": "no annotation is made but by --annotation",
    "--creds": "`imagetool login` keeps a user name and password",
    "--cw": "confidential workloads are not made",
    "--decryption-key": "encrypted images are not read",
    "--device": "RUN --device and --allow device=NAME give a step a device",
    "--disable-compression": "--compression none does it",
    "--dns-option": "--dns names the servers; other options of resolv.conf are the host's",
    "--dns-search": "--dns names the servers; search domains are the host's",
    "--env": "write ENV into the Dockerfile",
    "--force-compression": "a base's layers stay as they are; `imagetool copy --compression` makes all anew",
    "--format": "images are OCI images, which docker takes, HEALTHCHECK, SHELL and ONBUILD in them",
    "--from": "name the base by an argument: ARG BASE, FROM $BASE and --build-arg BASE=…",
    "--group-add": "USER and the image's /etc/group say the groups of a step",
    "--hooks-dir": "no hooks are run",
    "--http-proxy": "--build-arg HTTP_PROXY, without a value, gives steps the environment's proxy",
    "--identity-label": "no label is made but by LABEL and --label",
    "--ignorefile": "DOCKERFILE.dockerignore beside the Dockerfile is read before all others",
    "--iidfile-raw": "--iidfile writes the image's ID",
    "--inherit-annotations": "a base's annotations are not taken over; --annotation makes them",
    "--inherit-labels": "--unsetlabel takes labels away",
    "--ipc": "a step has an IPC namespace of its own",
    "--layer-label": "layers have no labels",
    "--logfile": "redirect stderr: 2> FILE",
    "--logsplit": "redirect stderr of each build by itself",
    "--manifest": "--tag names the index of a build for several platforms",
    "--no-hostname": "a step's host name is never put into the image",
    "--no-hosts": "a step's /etc/hosts is never put into the image",
    "--no-pivot": "--isolation chroot enters the root without pivot_root",
    "--omit-history": "an image tells how it was made",
    "--os": "--platform os/arch[/variant] says it",
    "--os-feature": "a platform has os, arch and variant",
    "--os-version": "a platform has os, arch and variant",
    "--pid": "a step has a PID namespace of its own",
    "--retry": "requests that failed in passing are always made again",
    "--retry-delay": "requests that failed in passing are always made again",
    "--runtime-flag": "--runtime may name a script that adds flags",
    "--rusage": "--stats tells what each step used",
    "--rusage-logfile": f"--stats tells what each step used; {_REPORT}",
    "--save-stages": "--target builds a stage as an image",
    "--sbom-image-output": _ATTEST,
    "--sbom-image-purl-output": _ATTEST,
    "--sbom-merge-strategy": _ATTEST,
    "--sbom-output": _ATTEST,
    "--sbom-purl-output": _ATTEST,
    "--sbom-scanner-command": _ATTEST,
    "--sbom-scanner-image": _ATTEST,
    "--sign-by": "images are not signed",
    "--signature-policy": "name bases by digest to pin them",
    "--source-policy-file": "name bases by digest to pin them",
    "--stage-labels": "--target builds a stage as an image",
    "--stdin": "a step's stdin is empty",
    "--transient-run-mounts": "RUN --mount in the Dockerfile says it",
    "--unsetannotation": "a base's annotations are not taken over",
    "--userns-gid-map": _ID_MAPS,
    "--userns-gid-map-group": _ID_MAPS,
    "--userns-uid-map": _ID_MAPS,
    "--userns-uid-map-user": _ID_MAPS,
    "--uts": "a step has a UTS namespace of its own",
    "--variant": "--platform os/arch/variant says it",
    "--volume": "RUN --mount=type=bind or type=cache in the Dockerfile, and --build-context for directories elsewhere",
    "-v": "RUN --mount=type=bind or type=cache in the Dockerfile, and --build-context for directories elsewhere",
    "-D": "--compression none is what buildah's -D means",
}

#: Of those, what is said of containers, and so of `from` and `run`, too.
_OF_CONTAINERS: Final = (
    *("--cert-dir", "--cgroup-parent", "--cgroupns", "--cpu-period", "--cpu-quota", "--cpuset-mems", "--creds"),
    *("--decryption-key", "--dns-option", "--dns-search", "--ipc", "--pid", "--retry", "--retry-delay", "--uts"),
    *("--userns-gid-map", "--userns-gid-map-group", "--userns-uid-map", "--userns-uid-map-user"),
)


def in_our_words(args: Sequence[str]) -> list[str]:
    """Return a command line with what others call things in our words; what is not understood stays as it is."""
    words = translated(args)
    if "build" not in words:
        return words
    found = []
    for text in words:
        name, equals, value = text.partition("=")
        if name in AS_ALWAYS and value in ("", "true"):
            continue
        if name in SAME:
            text = SAME[name] + equals + value
        found.append(text)
    return found


def hint_for(command: str, option: str) -> str:
    """Return what to do instead of an option that `command` does not have; "" for one that nobody has."""
    name = option.partition("=")[0]
    if command in ("from", "run") and name in _OF_CONTAINERS:
        return HINTS[name]
    if command != "build":
        return option_hint(command, name)
    if name in AS_ALWAYS:
        return "that is done in any case; " + (_STEPS if name == "--layers" else "it cannot be turned off")
    return HINTS.get(name, "")
