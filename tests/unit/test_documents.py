"""What the documents and comments point at is there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from imagetool.cli.commands import GLOBALS, all_commands
from imagetool.cli.foreign import foreign_names
from imagetool.errors import ImagetoolError

_TOP = Path(__file__).resolve().parents[2]
_DOCUMENTS = sorted(path for folder in (_TOP, _TOP / "docs") for path in folder.glob("*.md")) + sorted(
    path for folder in ("docs/adr", "docs/reference", "fixtures") for path in (_TOP / folder).glob("*.md")
)


@pytest.mark.parametrize("path", _DOCUMENTS, ids=lambda path: str(path.relative_to(_TOP)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert missing == []


def test_what_the_code_names_is_there() -> None:
    missing = set()
    for package in ("imagetool", "registry_server"):
        for source in (_TOP / package).rglob("*.py"):
            for name in re.findall(r"\bdocs/(?:adr|reference)/[\w/-]+(?:\.md)?", source.read_text()):
                found = (_TOP / name).exists() or list(_TOP.glob(f"{name}*"))
                missing |= set() if found else {f"{source.relative_to(_TOP)}: {name}"}
    assert missing == set()


def test_modules_that_are_named_are_there() -> None:
    folder = _TOP / "imagetool"
    packages = {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    missing = []
    for path in [*_DOCUMENTS, *folder.rglob("*.py"), *(_TOP / "registry_server").rglob("*.py")]:
        for name in re.findall(r"`(?:imagetool\.)?([a-z_]+(?:\.\w+)+)(?:\(\))?`", path.read_text()):
            package, *rest = name.split(".")
            if (
                package in packages
                and rest[-1] not in ("json", "toml")
                and not _leads_somewhere(folder / package, rest)
            ):
                missing.append((str(path.relative_to(_TOP)), name))
    assert missing == []


def _leads_somewhere(at: Path, names: list[str]) -> bool:
    """Say whether `module.name` is there below a package; what is in a class is not looked for."""
    for depth, name in enumerate(names):
        if (at / name).is_dir():
            at = at / name
            continue
        module = (at / f"{name}.py") if (at / f"{name}.py").exists() else (at / "__init__.py")
        wanted = names[depth + 1 : depth + 2] if module.stem == name else [name]
        return all(re.search(rf"\b{one}\b", module.read_text()) for one in wanted)
    return True


def test_the_targets_of_make_are_listed() -> None:
    text = (_TOP / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, flags=re.M))
    assert targets == set(re.findall(r"^([a-z]+):.*## ", text, flags=re.M)), "a target without a word of help"


_SHOWN = re.compile(r"(?<![\w./-])imagetool ((?:--?[a-z]\S* (?:[^-\s]\S* )?)*)([a-z]+)(?![\w.:/=-])([^`\n|;&#)<>]*)")


def _shown_commands() -> Iterator[tuple[str, str, list[str]]]:
    """Yield the document, the command and the options of every command line that a document shows."""
    for path in _DOCUMENTS:
        if "docs/adr" in str(path) or path.name == "CHANGELOG.md":  # which tell what was
            continue
        text = path.read_text()
        code = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S) + re.findall(r"`([^`\n]+)`", text)
        for before, command, rest in _SHOWN.findall("\n".join(code)):
            ours = f"{before} {rest}".partition(" -- ")[0]
            words = [word.partition("=")[0].rstrip(".,:…") for word in ours.split()]
            words = [word if word.startswith("--") else word[:2] for word in words]
            yield str(path.relative_to(_TOP)), command, [word for word in words if re.match(r"--?[a-z]", word)]


def test_commands_that_documents_show_exist() -> None:
    names = {*all_commands(), *foreign_names()}
    shown = list(_shown_commands())
    assert len(shown) > 50
    assert [one for one in shown if one[1] not in names] == []


def test_options_that_documents_show_exist() -> None:
    missing = []
    for document, command, options in _shown_commands():
        known = all_commands().get(command)
        if known is not None:  # another package's has options of its own
            there = {name for option in (*known.options, *GLOBALS) for name in option.spellings}
            missing += [(document, command, option) for option in options if option not in there]
    assert missing == []


def test_every_exit_code_is_documented_and_no_other() -> None:
    def codes(error: type[ImagetoolError]) -> set[int]:
        return {error.exit_code}.union(*map(codes, error.__subclasses__()))

    table = (_TOP / "docs/exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.M)}
    assert documented == codes(ImagetoolError) | {0, 129, 130, 141, 143}


def test_every_package_is_in_the_table_of_the_architecture() -> None:
    text = (_TOP / "ARCHITECTURE.md").read_text()
    named = {
        name for row in re.findall(r"^\| ([a-z_., ]+) \|", text, flags=re.M) for name in re.findall(r"[a-z_]+", row)
    }
    there = {path.stem for path in (_TOP / "imagetool").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert there | {"registry_server"} <= named


def test_the_order_of_imports_is_told_as_it_is_checked() -> None:
    contracts = tomllib.loads((_TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    told = " ".join((_TOP / "ARCHITECTURE.md").read_text().split())
    assert " → ".join(layers) in told


def test_every_variable_of_the_environment_is_documented() -> None:
    def variables(paths: Iterable[Path]) -> set[str]:
        return {name for path in paths for name in re.findall(r"\bIMAGETOOL_[A-Z_]+\b", path.read_text())}

    read = variables(path for name in ("imagetool", "registry_server") for path in (_TOP / name).rglob("*.py"))
    told = variables([*_DOCUMENTS, *(_TOP / "fixtures/golden/cli").glob("*.txt")])
    assert told == read
