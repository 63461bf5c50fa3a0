"""What is installed is whole: every package, every file that is no Python, and the licence."""

from __future__ import annotations

import tomllib
from pathlib import Path

_TOP = Path(__file__).resolve().parents[2]
_PACKAGES = ("imagetool", "registry_server")
_PYPROJECT = tomllib.loads((_TOP / "pyproject.toml").read_text())


def _files(package: str) -> list[Path]:
    return [path for path in (_TOP / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_the_licence_is_the_one_that_the_metadata_names() -> None:
    project = _PYPROJECT["project"]
    assert project["license"] == "Apache-2.0"
    (name,) = project["license-files"]
    words = (_TOP / name).read_text().split()
    assert words[:4] == ["Apache", "License", "Version", "2.0,"]


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for package in _PACKAGES for path in _files(package) if path.suffix == ".py"}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_file_beside_the_modules_is_installed() -> None:
    data = _PYPROJECT["tool"]["setuptools"]["package-data"]
    for package in _PACKAGES:
        installed = {path for pattern in data[package] for path in (_TOP / package).glob(pattern)}
        assert {path for path in _files(package) if path.suffix != ".py"} == installed
