"""Files that change while a build reads them: what was made of them is never found under another's cache key."""

from __future__ import annotations

import hashlib
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagetool.build import adding, copystep, run
from imagetool.build.worker import Download, Times
from imagetool.errors import BuildError, ImagetoolError
from imagetool.oci.platform import Platform
from tests.support.workshop import Workshop, texts


def _saved_meanwhile(
    patched: pytest.MonkeyPatch, module: Any, name: str, save: Callable[[], object]
) -> Callable[[], None]:
    """Have somebody save a file between the look at it and the use of it; return what ends that."""
    real = getattr(module, name)

    def late(*args: Any, **kwargs: Any) -> Any:
        save()
        return real(*args, **kwargs)

    patched.setattr(module, name, late)
    return lambda: patched.setattr(module, name, real)


@pytest.mark.parametrize("preserve", [False, True])
def test_a_copy_is_recorded_as_what_was_copied(shop: Workshop, monkeypatch: pytest.MonkeyPatch, preserve: bool) -> None:
    def build() -> dict[str, str]:
        return texts(shop.build("FROM base\nCOPY a /a\n", times=Times(preserve=preserve)), layers=[1])

    shop.write("a", "first")
    build()
    shop.write("a", "looked at")
    end = _saved_meanwhile(monkeypatch, copystep, "store", lambda: shop.write("a", "saved"))
    assert build() == {"a": "saved"}
    end()
    shop.write("a", "looked at")
    assert build() == {"a": "looked at"}
    shop.write("a", "saved")
    assert build() == {"a": "saved"}


def test_an_archive_is_recorded_as_what_was_unpacked(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(text: str) -> Path:
        path = shop.context / "a.tar"
        shop.write("inner", text)
        with tarfile.open(path, "w") as tar:
            tar.add(shop.context / "inner", arcname="inner")
        return path

    save("looked at")
    end = _saved_meanwhile(monkeypatch, adding, "_items", lambda: save("saved, and longer"))
    assert texts(shop.build("FROM base\nADD a.tar /n/\n"), layers=[1]) == {"n/inner": "saved, and longer"}
    end()
    save("looked at")
    assert texts(shop.build("FROM base\nADD a.tar /n/\n"), layers=[1]) == {"n/inner": "looked at"}


def test_a_run_over_files_that_changed_is_not_recorded(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "FROM base\nRUN --mount=type=bind,source=a,target=/a x\n"
    shop.write("a", "looked at")
    end = _saved_meanwhile(monkeypatch, run, "step_mounts", lambda: shop.write("a", "saved"))
    shop.build(text)
    end()
    shop.write("a", "looked at")
    shop.build(text)
    assert shop.cached[-1] is False
    shop.build(text)
    assert shop.cached[-1] is True


def test_a_run_for_another_platform_is_another_step(shop: Workshop) -> None:
    shop.build("FROM scratch\nRUN x\n", platform=Platform())
    shop.build("FROM scratch\nRUN x\n", platform=Platform())
    assert shop.cached[-1] is True
    shop.build("FROM scratch\nRUN x\n", platform=Platform(architecture="386"))
    assert shop.cached[-1] is False


def test_downloads_of_builds_at_the_same_time_are_kept_apart(shop: Workshop) -> None:
    """Two builds in one store fetch a file of the same name in the same step; neither sees the other's."""
    both = threading.Barrier(2)

    @contextmanager
    def download(url: str) -> Iterator[Download]:
        def chunks() -> Iterator[bytes]:
            yield url.encode()
            both.wait(30)

        yield Download("file", 0, chunks())
        both.wait(30)

    shop._download = download  # type: ignore[method-assign]
    found: dict[str, dict[str, str]] = {}

    def build(host: str) -> None:
        url = f"http://{host}/file"
        checksum = hashlib.sha256(url.encode()).hexdigest()
        image = shop.build(f"FROM scratch\nADD --checksum=sha256:{checksum} {url} /\n")
        found[host] = texts(image)

    threads = [threading.Thread(target=build, args=(host,)) for host in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": {"file": "http://one/file"}, "two": {"file": "http://two/file"}}


@pytest.mark.parametrize("name", ["a\0b", "n" * 300])
def test_a_download_whose_name_no_file_can_have_is_refused(shop: Workshop, name: str) -> None:
    shop.downloads[f"http://host/{name}"] = ("", 0, b"data")
    with pytest.raises(ImagetoolError):
        shop.build(f"FROM scratch\nADD http://host/{name} /n/\n")


def test_files_of_a_build_with_a_single_id_are_not_those_of_one_with_many(shop: Workshop) -> None:
    shop.build("FROM base\nRUN x\n", single_id=True)
    shop.build("FROM base\nRUN x\n", single_id=True)
    assert shop.cached[-1] is True
    shop.build("FROM base\nRUN x\n")
    assert shop.cached[-1] is False


@pytest.mark.parametrize("dest", ["/" + "n" * 256, "/n" * 5000, "/ü" + "ü" * 127], ids=["name", "deep", "bytes"])
def test_a_destination_that_no_file_system_can_have_is_refused_at_once(shop: Workshop, dest: str) -> None:
    shop.write("a", "a")
    with pytest.raises(BuildError, match="too long"):
        shop.build(f"FROM base\nCOPY a {dest}\n")
    assert texts(shop.build(f"FROM base\nCOPY a /{'n' * 255}\n"), layers=[1]) == {"n" * 255: "a"}
