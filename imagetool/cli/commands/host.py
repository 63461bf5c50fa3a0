"""The commands about this machine: what it can do, what it allows, who it is to registries."""

from __future__ import annotations

from imagetool.cli.commands import JSON
from imagetool.cli.grammar import Argument, Command, Option

_REGISTRY = Argument("registry", required=False, default="docker.io", help="HOST[:PORT]. [default: docker.io]")

COMMANDS = (
    Command("limits", "limits:limits", "List the bounds on what comes from outside, and how to set them.", JSON),
    Command(
        "doctor",
        "running:doctor",
        "Tell what this host offers, what will be used, and how to get what is missing; exit with 9 when RUN "
        "or the store cannot work.",
        JSON,
    ),
    Command(
        "login",
        "access:login",
        "Check and keep a user name and password for a registry, where docker and podman keep theirs.",
        Option("--username", "-u", help="The user name. [default: asked for]"),
        Option("--password", "-p", help="The password; it shows in the list of processes."),
        Option("--password-stdin", kind="flag", help="Read the password from stdin."),
        _REGISTRY,
    ),
    Command(
        "logout",
        "access:logout",
        "Forget the password for a registry.",
        _REGISTRY,
    ),
    Command(
        "completion",
        "completion:script",
        "Print the completion script of a shell.",
        Argument("shell", choices=("bash", "zsh", "fish"), help="bash, zsh or fish."),
    ),
)
