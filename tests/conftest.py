"""Rules for all tests: what needs root or a peer says so, and in CI is never skipped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.bases import made_once, store_with
from tests.support.command import imagetool
from tests.support.debian import build_images

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: programs that tests interrupt would inherit that they ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy with something else says nothing about what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to write golden files anew."""
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Turn a skip into a failure where CI promises to have installed everything."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs root for everybody else."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def busybox_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with busybox:latest, to copy from with `store_with`."""
    return made_once(tmp_path_factory, "base-busybox", lambda root: _base("busybox", root))


@pytest.fixture(scope="session")
def debian_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with debian:latest, which mmdebstrap makes in about 20 seconds, to copy from with `store_with`."""
    return made_once(tmp_path_factory, "base-debian", lambda root: _base("debian", root))


@pytest.fixture(scope="session")
def debian_images(debian_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the images of `tests.support.debian`, only to be read."""

    def make(root: Path) -> None:
        store_with(debian_base, root.parent / f"{root.name}-made")
        build_images(root.parent / f"{root.name}-made/store", root.parent / f"{root.name}-context")
        (root.parent / f"{root.name}-made/store").rename(root)

    return made_once(tmp_path_factory, "debian-images", make)


def _base(what: str, root: Path) -> None:
    imagetool("base", what, root=root)
