"""What ADD does beyond COPY: archives of the context are unpacked, URLs are fetched.

Source: Dockerfile reference, "ADD".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from imagetool import limits
from imagetool.build import git
from imagetool.build.copying import CopyRequest, copy_items
from imagetool.build.copystep import content_digest, copy_from_context, copy_history, copy_inputs, copy_request
from imagetool.build.files import Taken
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.inputs import Inputs, Made, record, store
from imagetool.build.root import Root
from imagetool.build.sources import find_sources
from imagetool.content.folders import scratch_folder
from imagetool.content.staging import storage_errors
from imagetool.dockerfile import Add, Copy, IgnoreRules, is_remote
from imagetool.errors import BuildError, DigestMismatch, InvalidArchive, Unsupported
from imagetool.layer.entry import Entry, Item, display, parents
from imagetool.layer.tarreader import read
from imagetool.layer.whiteout import is_reserved
from imagetool.oci.digest import Digest, new_hasher
from imagetool.streams.codecs import decompress, sniff
from imagetool.streams.pump import read_chunks
from imagetool.streams.verify import bounded
from imagetool.values import replace

_LINKS: Final = 40  # symlinks that lead to symlinks, as in the kernel


def add(inputs: Inputs, instruction: Add) -> Made:
    """ADD: like COPY from the context, but archives are unpacked and URLs fetched."""
    history = copy_history("ADD", instruction)
    local = [source for source in instruction.sources if not is_remote(source)]
    if len(local) == len(instruction.sources) and not _archives(inputs, local, instruction.unpack):
        plain = Copy(
            sources=instruction.sources,
            dest=instruction.dest,
            chown=instruction.chown,
            chmod=instruction.chmod,
            link=instruction.link,
            exclude=instruction.exclude,
            heredocs=instruction.heredocs,
            source=instruction.source,
        )
        return copy_from_context(inputs, plain, history)
    return _add_more(inputs, instruction, history)


def _add_more(inputs: Inputs, instruction: Add, history: str) -> Made:
    """Make the layer of an ADD that has archives or URLs among its sources."""
    base = Root(inputs.trees, () if instruction.link else inputs.state.layers)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(inputs.worker.scratch))
        fetched: list[Fetched | Cloned] = []
        for source in instruction.sources:
            if (repository := git.GitSource.parse(source)) is not None:
                fetched.append(_clone(inputs, repository, folder / f"git-{len(fetched)}", instruction))
            elif is_remote(source):
                fetched.append(_fetch(inputs, source, folder / f"url-{len(fetched)}", instruction))
        local = _local_digests(inputs, instruction)
        key = inputs.key(
            step="add",
            content=[one.identity for one in fetched] + local,
            unpack=instruction.unpack,
            **copy_inputs(inputs, instruction),
        )
        cached = inputs.lookup(key)
        if cached is not None:
            return Made(cached.layer, history, cached=True, key=key)
        layer = store(inputs, _items(inputs, instruction, base, fetched, stack))
        return record(inputs, key, layer, history, steady=_local_digests(inputs, instruction) == local)


def _archives(inputs: Inputs, local: Sequence[str], unpack: bool | None) -> list[str]:
    """Return the paths of the context that are archives which ADD unpacks: told by what they hold, not by name.

    Raises BuildError for a source that is missing.
    """
    if unpack is False or not local:
        return []
    with inputs.context_files() as files:
        found = find_sources(local, files, parents=False, needed=True)
        return [path for path in dict.fromkeys(found) if _is_archive(files, path)]


class Fetched(NamedTuple):
    """A file that was downloaded; `modified` is in nanoseconds, `packed` says that it begins like a tar."""

    path: Path
    modified: int
    digest: Digest
    packed: bool

    @property
    def identity(self) -> str:
        """What tells it from others."""
        return str(self.digest)


class Cloned(NamedTuple):
    """A Git repository that was fetched."""

    checkout: git.Checkout
    subdir: str
    keep_git_dir: bool

    @property
    def identity(self) -> str:
        """What tells it from others; the URL does not matter."""
        return f"git {self.checkout.commit} {self.subdir} {self.keep_git_dir}"


def _items(
    inputs: Inputs, instruction: Add, base: Root, fetched: Sequence[Fetched | Cloned], stack: ExitStack
) -> Iterator[Item]:
    """Yield plain sources first, then what was fetched, then what archives hold; the last of a name counts."""
    times = inputs.worker.times
    files = stack.enter_context(inputs.context_files())
    local = [source for source in instruction.sources if not is_remote(source)]
    packed = _archives(inputs, local, instruction.unpack)
    request = replace(copy_request(inputs, instruction, base), sources=tuple(local), skip=frozenset(packed))
    if request.sources or request.texts:
        yield from copy_items(request, files, base)
    for got in fetched:
        if isinstance(got, Cloned):
            work_tree = stack.enter_context(_downloaded(got.checkout.folder, times.of_layer(got.checkout.time * 10**9)))
            yield from copy_items(replace(request, sources=(".",), texts=(), skip=frozenset()), work_tree, base)
        elif instruction.unpack and got.packed:
            with open(got.path, "rb") as file:
                yield from _unpacked(inputs, request, base, read_chunks(file), got.path.name)
        else:
            path = got.path
            path.chmod(0o600)
            one = stack.enter_context(_downloaded(path.parent, times.of_layer(got.modified)))
            single = replace(request, sources=(_literal(path.name),), texts=(), skip=frozenset())
            yield from copy_items(single, one, base)
    for source in packed:
        (item,) = list(files.stream([_taken(files, source)]))
        yield from _unpacked(inputs, request, base, item[1], source)


def _unpacked(inputs: Inputs, request: CopyRequest, base: Root, chunks: Iterable[bytes], name: str) -> Iterator[Item]:
    """Yield the entries of an archive, below the destination, after the directories they need."""
    dest, _ = base.kind(request.dest.encode(errors="surrogateescape"), follow=True)
    owner = request.owner or (0, 0)
    made: set[bytes] = set()
    placed: dict[bytes, bytes] = {}
    links: dict[bytes, bytes] = {}
    where = f"ADD {name}"
    for entry, content in read(decompress(chunks, where=where), where=where):
        if is_reserved(entry.name):
            raise BuildError(f"{where}: {display(entry.name)}: names that begin with .wh. mean a deletion in a layer")
        within = _within(entry.name, links, where)
        target = within if dest == b"." else dest if within == b"." else dest + b"/" + within
        if target == b".":
            continue
        target = placed[entry.name] = _place(target, made, base)
        links.pop(within, None)
        if entry.kind == "symlink":
            links[within] = entry.linkname
        for folder in parents(target):
            if folder not in made and base.kind(folder, follow=False)[1] is None:
                yield Entry(folder, "dir", 0o755, *owner, 0, request.time), ()
            made.add(folder)
        made.add(target)
        linkname = entry.linkname
        if entry.kind == "link":
            linkname = placed.get(linkname, linkname if dest == b"." else dest + b"/" + linkname)
        uid, gid = request.owner or (entry.uid, entry.gid)
        mode = request.chmod.apply(entry.mode, is_folder=entry.kind == "dir") if request.chmod else entry.mode
        mode = 0o777 if entry.kind == "symlink" else mode  # as every symlink has it that was on a disk
        mtime = inputs.worker.times.of_layer(entry.mtime)
        yield entry._replace(name=target, linkname=linkname, uid=uid, gid=gid, mode=mode, mtime=mtime), content


def _within(name: bytes, links: Mapping[bytes, bytes], where: str) -> bytes:
    """Return where an entry lands below the destination: its archive's own symlinks above it are followed.

    For them the destination is the root, which neither ".." nor "/" leaves, as docker unpacks in a chroot of it.
    """
    parts: list[bytes] = []
    *waiting, last = name.split(b"/")
    waiting.reverse()
    followed = 0
    while waiting:
        part = waiting.pop()
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
        link = links.get(b"/".join(parts))
        if link is None:
            continue
        followed += 1
        if followed > _LINKS:
            raise BuildError(f"{where}: {display(name)}: symlinks above it lead to each other")
        del parts[0 if link.startswith(b"/") else -1 :]
        waiting += reversed(link.split(b"/"))
    return b"/".join([*parts, last])


def _place(target: bytes, made: set[bytes], base: Root) -> bytes:
    """Return where an entry of an archive lands: symlinks that the root has above it are followed, as when unpacking.

    Debian's /bin is one: an archive with bin/tool puts usr/bin/tool there, and leaves /bin alone.
    """
    above, _, last = target.rpartition(b"/")
    if not above or any(folder in made for folder in parents(target)):
        return target
    folder, _ = base.kind(above, follow=True)
    return last if folder == b"." else folder + b"/" + last


def _taken(files: FolderFiles, source: str) -> Taken:
    name, entry = files.lookup(posixpath.normpath("/" + source).lstrip("/").encode(errors="surrogateescape"))
    if entry is None:
        raise BuildError(f"{source!r} not found", about=source)
    return Taken(name, entry)


def _is_archive(files: FolderFiles, source: str) -> bool:
    """Say whether a file begins like a tar, compressed or not."""
    name, entry = files.lookup(posixpath.normpath("/" + source).lstrip("/").encode(errors="surrogateescape"))
    if entry is None or entry.kind != "file" or entry.size < 20:
        return False
    ((_, content),) = list(files.stream([Taken(name, entry)]))
    return _begins_like_tar(content, source)


def _begins_like_tar(content: Iterable[bytes], where: str) -> bool:
    chunks = iter(content)
    head = next(chunks, b"")
    if sniff(head) == "none":
        return head[257:262] == b"ustar"
    try:
        plain = next(decompress(chain([head], chunks), where=where), b"")
    except InvalidArchive:
        return False  # a broken archive is copied as the file it is
    return plain[257:262] == b"ustar"


def _local_digests(inputs: Inputs, instruction: Add) -> list[str]:
    local = tuple(source for source in instruction.sources if not is_remote(source))
    if not local:
        return []
    request = CopyRequest(local, "/", exclude=IgnoreRules.of(instruction.exclude))
    with inputs.context_files(lambda _: 0) as files:
        return [str(content_digest(request, files))]


def _fetch(inputs: Inputs, source: str, folder: Path, instruction: Add) -> Fetched:
    """Download a URL into a scratch file; its digest is checked against --checksum."""
    if not source.lower().startswith(("http://", "https://")):
        raise Unsupported(f"ADD {source}: there are http, https and Git URLs")
    folder.mkdir(parents=True, exist_ok=True)
    hasher = new_hasher()
    inputs.worker.witness.opaque()
    with inputs.worker.download(source) as download:
        name = download.name
        if "\0" in name:
            raise BuildError(f"ADD {source}: the URL ends in no name that a file can have", about=source)
        if instruction.dest.endswith("/") and not name:
            raise BuildError(f"ADD {source}: the URL ends in no file name; write one as the destination", about=source)
        path = folder / (name or "download")
        with storage_errors(f"cannot store what {source} gives"), open(path, "wb") as file:
            for chunk in bounded(download.chunks, limits.LAYER_BYTES, where=source, name="LAYER_BYTES"):
                hasher.update(chunk)
                file.write(chunk)
    digest = Digest("sha256", hasher.hexdigest())
    if instruction.checksum and instruction.checksum != str(digest):
        raise DigestMismatch(f"ADD {source}", expected=instruction.checksum, got=str(digest))
    with open(path, "rb") as file:
        packed = _begins_like_tar(read_chunks(file), source)
    return Fetched(path, download.modified, digest, packed)


def _clone(inputs: Inputs, source: git.GitSource, folder: Path, instruction: Add) -> Cloned:
    """Fetch a repository; --checksum is the commit, or how it begins."""
    inputs.worker.witness.opaque()
    keep = bool(instruction.keep_git_dir)
    token = inputs.secrets.git_token
    checkout = git.fetch(source, folder, token=token, keep_git_dir=keep)
    wanted = (instruction.checksum or "").lower()
    if wanted and (len(wanted) < git.LEAST_COMMIT or not checkout.commit.startswith(wanted)):
        raise DigestMismatch(f"ADD {source.url}", expected=wanted, got=checkout.commit)
    return Cloned(checkout, source.subdir, keep)


def _literal(name: str) -> str:
    """Return a source pattern that stands for this name only."""
    return re.sub(r"([*?\[\\])", r"\\\1", name)


def _downloaded(folder: Path, mtime: int) -> FolderFiles:
    return FolderFiles(folder, ignore=IgnoreRules(), times=lambda _: mtime)
