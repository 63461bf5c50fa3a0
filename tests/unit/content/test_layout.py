"""What the OCI layout promises beyond the store contract: its files, its locks, its crash safety."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.errors import DigestMismatch, NotFound, StorageError, UsageError
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Manifest


def image(store: LayoutStore, content: bytes) -> Manifest:
    layer = Descriptor.of(content, "application/vnd.oci.image.layer.v1.tar")
    config = Descriptor.of(b'{"v":"%s"}' % content, "application/vnd.oci.image.config.v1+json")
    store.push(layer, [content])
    store.push(config, [b'{"v":"%s"}' % content])
    manifest = Manifest.make(config, [layer])
    store.push(manifest.descriptor, [manifest.raw])
    return manifest


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_layout_has_exactly_the_files_of_the_spec(tmp_path: Path) -> None:
    LayoutStore.create(tmp_path / "new")
    assert files(tmp_path / "new") == {"oci-layout", "index.json"}
    assert json.loads((tmp_path / "new/oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_names_are_annotations_and_unknown_fields_of_the_index_survive(tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path)
    index = tmp_path / "index.json"
    index.write_bytes(b'{ "schemaVersion":2, "x-other": {"n": 1.50, "s": "\\u00e9"},"manifests":[] }')
    store.tag(image(store, b"one").descriptor, "one")
    store.tag(image(store, b"two").descriptor, "two")
    raw = index.read_bytes()
    assert b'"x-other": {"n": 1.50, "s": "\\u00e9"}' in raw
    assert [entry["annotations"] for entry in json.loads(raw)["manifests"]] == [{REF_NAME: "one"}, {REF_NAME: "two"}]


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        LayoutStore.create(tmp_path)
    with pytest.raises(NotFound, match="oci-layout"):
        LayoutStore.open(tmp_path)


def test_a_blob_changed_on_disk_is_not_read(tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path)
    descriptor = Descriptor.of(b"content", "x/y")
    store.push(descriptor, [b"content"])
    store.path(descriptor.digest).write_bytes(b"c0ntent")
    with pytest.raises(DigestMismatch), store.fetch(descriptor) as chunks:
        list(chunks)


def test_collect_removes_what_no_root_reaches_and_nothing_else(tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path)
    kept, dropped = image(store, b"kept"), image(store, b"dropped")
    store.tag(kept.descriptor, "kept")
    store.tag(dropped.descriptor, "dropped")
    store.untag("dropped")
    pinned = Descriptor.of(b"pinned", "x/y")
    store.push(pinned, [b"pinned"])
    count, freed = store.collect(keep=[pinned.digest])
    assert (count, freed) == (3, sum(child.size for child in dropped.children) + dropped.descriptor.size)
    assert all(store.exists(child) for child in (*kept.children, kept.descriptor, pinned))
    assert not any(store.exists(child) for child in (*dropped.children, dropped.descriptor))


def test_collect_waits_for_a_session(tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path)
    done = threading.Event()

    def collect() -> None:
        LayoutStore.open(tmp_path).collect()
        done.set()

    with store.session():
        manifest = image(store, b"in the making")
        thread = threading.Thread(target=collect)
        thread.start()
        assert not done.wait(0.2)
        store.tag(manifest.descriptor, "made")
    thread.join(10)
    assert done.is_set()
    assert store.exists(manifest.layers[0])


def test_a_root_that_cannot_be_read_stops_collect_before_it_removes_anything(tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path)
    manifest = image(store, b"damaged")
    store.tag(manifest.descriptor, "damaged")
    path = store.path(manifest.descriptor.digest)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    with pytest.raises(DigestMismatch):
        store.collect()
    assert store.exists(manifest.layers[0])


def test_processes_that_tag_at_once_lose_no_name(tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path)
    descriptor = image(store, b"shared").descriptor
    code = (
        "import sys; from pathlib import Path; from imagetool.content.layout import LayoutStore\n"
        "store = LayoutStore.open(Path(sys.argv[1])); root = store.resolve('first')\n"
        "for n in range(10): store.tag(root, f'{sys.argv[2]}-{n}')"
    )
    store.tag(descriptor, "first")
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(4)]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert len(store.names()) == 41


def test_a_writer_that_was_killed_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    LayoutStore.create(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from imagetool.content.layout import LayoutStore\n"
        "with LayoutStore.open(Path(sys.argv[1])).ingest() as blob:\n"
        "    blob.write(b'x' * 100000); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        LayoutStore.create(tmp_path)
        assert len(os.listdir(tmp_path / ".staging")) == 1, "a file in use was swept"
        writer.send_signal(signal.SIGKILL)
    LayoutStore.create(tmp_path)
    assert files(tmp_path) == {"oci-layout", "index.json"}
    assert not (tmp_path / ".staging").exists()


@pytest.mark.root
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=True)
    try:
        store = LayoutStore.create(tmp_path / "layout")
        data = b"x" * (4 << 20)
        with pytest.raises(StorageError, match="No space left on device; free some space"):
            store.push(Descriptor.of(data, "x/y"), [data])
        assert files(tmp_path) == {"layout/oci-layout", "layout/index.json"}
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
