"""Completion for bash, zsh and fish.

The scripts are thin: at every TAB they ask `imagetool __complete WORD…`, the last word being the
one that is completed, and get one candidate a line, `WORD` or `WORD<TAB>what it is`. An answer
that is the line `:files` asks the shell to complete a path.
"""

from __future__ import annotations

import sys

from imagetool.cli.commands import GLOBALS, all_commands, find_command
from imagetool.cli.grammar import Argument, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from imagetool.cli.commands import Globals

Candidates = list[tuple[str, str]]
FILES: Candidates = [(":files", "")]

_TRANSPORTS = ("docker://", "oci:", "oci-archive:", "docker-archive:", "dir:", "aci:")
_FILE_TRANSPORTS = _TRANSPORTS[1:]

_BASH = r"""# bash completion for imagetool: imagetool completion bash > /etc/bash_completion.d/imagetool
_imagetool() {
    # From the line itself: bash splits COMP_WORDS at ":" and "=", which image names and options are full of.
    local line="${COMP_LINE:0:COMP_POINT}" words word candidate split=""
    read -ra words <<<"$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    word="${words[-1]}"
    [[ "$word" == *[=:]* ]] && split="${word%"${word##*[=:]}"}"
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [ "$candidate" = ":files" ]; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "${word#"$split"}")
            return
        fi
        COMPREPLY+=("${candidate#"$split"}")
    done < <(imagetool __complete "${words[@]:1}" 2>/dev/null)
    [[ "${#COMPREPLY[@]}" = 1 && "${COMPREPLY[0]}" == *[=:/] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _imagetool imagetool
"""

_ZSH = r"""#compdef imagetool
# zsh completion for imagetool: imagetool completion zsh > "${fpath[1]}/_imagetool"
_imagetool() {
    local -a described
    local line
    for line in "${(@f)$(imagetool __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -z "$line" ]] && continue
        if [[ "$line" == ":files" ]]; then
            compset -P '*[=:]'
            _files
            return
        fi
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe 'imagetool' described
}
if [ "$funcstack[1]" = "_imagetool" ]; then _imagetool "$@"; else compdef _imagetool imagetool; fi
"""

_FISH = r"""# fish completion for imagetool: imagetool completion fish > ~/.config/fish/completions/imagetool.fish
function __imagetool_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (imagetool __complete $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            set -l split (string match -r '^.*[=:]' -- (commandline -ct))
            for path in (__fish_complete_path (string replace -r '^.*[=:]' '' -- (commandline -ct)))
                echo "$split$path"
            end
        else
            echo $line
        end
    end
end
complete -c imagetool -f -a '(__imagetool_complete)'
"""


def script(globals: Globals, *, shell: str) -> None:
    """Print a shell's script."""
    sys.stdout.write({"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell])


def complete(words: Sequence[str]) -> int:
    """Print the candidates for the last word; none for what cannot be completed."""
    for word, what in candidates(list(words) or [""]):
        sys.stdout.write(f"{word}\t{what}\n" if what else f"{word}\n")
    return 0


def candidates(words: Sequence[str]) -> Candidates:
    """Return what the last word may become, given those before it."""
    *before, last = words
    command, pending, places, root, only_words = _read(before)
    if pending is not None:
        return _values(pending, last, root)
    if last.startswith("-") and not only_words and (command is None or command.target):
        name, equals, value = last.partition("=")
        options = _options(command)
        if equals:
            option = next((one for one in options if name in one.names), None)
            found = _values(option, value, root) if option else []
            return found if found == FILES else [(f"{name}={word}", what) for word, what in found]
        return _starting(last, [(text, one.help) for one in options for text in _spellings(one)])
    if command is None:
        return _starting(last, list(_command_names()))
    if not command.target:
        return _starting(last, list(_foreign_words(command.name, before)))
    arguments = command.arguments
    if not arguments or (places >= len(arguments) and not arguments[-1].many):
        return []
    return _values(arguments[min(places, len(arguments) - 1)], last, root)


def _read(words: Sequence[str]) -> tuple[Command | None, Option | None, int, str | None, bool]:
    """Read the words before: the command, an option that waits for its value, how many arguments, --root, `--`."""
    command: Command | None = None
    pending: Option | None = None
    places = 0
    root: str | None = None
    only_words = False
    for word in words:
        if pending is not None:
            root = word if pending.name == "root" else root
            pending = None
        elif word == "--":
            only_words = True
        elif word.startswith("-") and word != "-" and not only_words:
            name, equals, value = word.partition("=")
            option = next((one for one in _options(command) if name in one.names), None)
            if option is not None and option.takes_value and not equals:
                pending = option
            elif option is not None and option.name == "root":
                root = value
        elif command is None:
            command = find_command(word) or Command(word, "", "")
        else:
            places += 1
    return command, pending, places, root, only_words


def _options(command: Command | None) -> list[Option]:
    return [*(command.options if command else ()), *GLOBALS, Option("--help", "-h", kind="flag", help="Explain.")]


def _spellings(option: Option) -> list[str]:
    return [text for text in option.spellings if text.startswith("--")]


def _command_names() -> Iterator[tuple[str, str]]:
    for command in all_commands().values():
        yield command.name, command.help
    from imagetool.cli.foreign import foreign_names

    for name in foreign_names():
        yield name, ""


def _foreign_words(name: str, before: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the commands and options of another package's command, as far as the words before lead into it."""
    from imagetool.cli.foreign import foreign_command

    point = foreign_command(name)
    if point is None:
        return
    import typer

    command: Any = typer.main.get_command(point.load())
    for word in before[before.index(name) + 1 :]:
        command = getattr(command, "commands", {}).get(word, command)
    for known, inner in getattr(command, "commands", {}).items():
        yield known, inner.help or ""
    for parameter in command.params:
        for text in parameter.opts:
            if text.startswith("--") and text not in ("--install-completion", "--show-completion"):
                yield text, getattr(parameter, "help", "") or ""


def _values(one: Option | Argument, text: str, root: str | None) -> Candidates:
    if one.choices:
        return _starting(text, [(choice, "") for choice in one.choices])
    if one.name == "output":
        return FILES if "dest=" in text else _starting(text, [(f"type={kind},dest=", "") for kind in _OUTPUTS])
    if one.kind == "file" or ("image" in one.kind and text.startswith(_FILE_TRANSPORTS)):
        return FILES
    named = [(name, "working container") for name in (_container_names(root) if "container" in one.kind else ())]
    if "image" in one.kind:
        named += [*((name, "") for name in _local_names(root)), *((transport, "") for transport in _TRANSPORTS)]
    return _starting(text, named)


_OUTPUTS = ("oci", "docker", "local", "tar")


def _local_names(root: str | None) -> list[str]:
    """Return the names in the local store; a store that is not there or not readable has none."""
    import json
    import os

    from imagetool.config.environment import store_root

    try:
        with open(os.path.join(store_root(root), "layout", "index.json"), "rb") as file:
            tree = json.loads(file.read())
        found = [
            root["annotations"]["org.opencontainers.image.ref.name"]
            for root in tree["manifests"]
            if root.get("annotations")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [name for name in found if isinstance(name, str) and name.isprintable()]


def _container_names(root: str | None) -> list[str]:
    """Return the names of the working containers."""
    import os

    from imagetool.config.environment import store_root

    try:
        return sorted(name for name in os.listdir(store_root(root) / "containers") if not name.startswith("."))
    except OSError:
        return []


def _starting(text: str, found: Candidates) -> Candidates:
    return [
        (word, " ".join(what.split()).partition(". ")[0].rstrip(".")) for word, what in found if word.startswith(text)
    ]
