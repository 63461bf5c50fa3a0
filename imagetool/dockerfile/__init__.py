"""The Dockerfile language: text to typed instructions. Pure: no files, no images, no environment.

`parse` reads a Dockerfile, `expand_instruction` puts variables into one instruction, `IgnoreRules` decides which files
of the context are left out. Editing a Dockerfile is in `imagetool.dockerfile.edit`, which is not imported here.
"""

from imagetool.dockerfile.expansion import expand_instruction
from imagetool.dockerfile.glob import has_wildcard, match
from imagetool.dockerfile.heredoc import ExecutableHeredoc, script_of
from imagetool.dockerfile.ignore import IgnoreMatch, IgnoreRules
from imagetool.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    RunDevice,
    RunMount,
    Shell,
    ShellForm,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from imagetool.dockerfile.lines import Directives, ParseWarning
from imagetool.dockerfile.parser import Dockerfile, Stage, parse, parse_trigger
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.values import (
    context_path,
    is_remote,
    parse_ports,
    parse_signal,
    parse_user,
    split_pivot,
)
from imagetool.dockerfile.words import Expansion, expand, expand_traced, expand_words

__all__ = [
    "Add",
    "Arg",
    "Cmd",
    "Command",
    "Copy",
    "Directives",
    "Dockerfile",
    "Entrypoint",
    "Env",
    "ExecForm",
    "ExecutableHeredoc",
    "Expansion",
    "Expose",
    "From",
    "Healthcheck",
    "Heredoc",
    "IgnoreMatch",
    "IgnoreRules",
    "Instruction",
    "Label",
    "Maintainer",
    "Onbuild",
    "ParseWarning",
    "Run",
    "RunDevice",
    "RunMount",
    "Shell",
    "ShellForm",
    "Source",
    "Stage",
    "Stopsignal",
    "User",
    "Volume",
    "Workdir",
    "context_path",
    "expand",
    "expand_instruction",
    "expand_traced",
    "expand_words",
    "has_wildcard",
    "is_remote",
    "match",
    "parse",
    "parse_ports",
    "parse_signal",
    "parse_trigger",
    "parse_user",
    "script_of",
    "split_pivot",
]
