"""The MetaStore in SQLite: one file, WAL, synced before a write is acknowledged."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from imagetool.errors import StorageError
from imagetool.oci.digest import Digest
from registry_server.metadata import StoredManifest

_HELD = "SELECT id FROM repository WHERE name = ?"


class SqliteMetadata:
    """Safe for several threads: each has its own connection, writers take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._writing = threading.Lock()
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                script = resources.files(__package__).joinpath("0001.sql").read_text()
                for statement in script.split(";"):
                    db.execute(statement)
                db.execute("PRAGMA user_version = 1")
            elif version > 1:
                raise StorageError(f"{path} was made by a newer version of this server (schema {version})")

    def _connection(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self._path, isolation_level=None, timeout=30)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            self._local.db = db
        return db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _one(self, query: str, *values: Any) -> Any:
        return self._connection().execute(query, values).fetchone()

    @staticmethod
    def _repository(db: sqlite3.Connection, name: str) -> int:
        db.execute("INSERT OR IGNORE INTO repository (name) VALUES (?)", (name,))
        row = db.execute(_HELD, (name,)).fetchone()
        return int(row[0])

    def blob(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size; see `MetaStore`."""
        row = self._one(
            f"SELECT size FROM blob JOIN repository_blob USING (digest) WHERE digest = ? AND repository = ({_HELD})",
            str(digest),
            repository,
        )
        return row[0] if row else None

    def add_blob(self, repository: str, digest: Digest, size: int) -> None:
        """Let a repository hold a blob; see `MetaStore`."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO blob (digest, size) VALUES (?, ?)", (str(digest), size))
            row = (self._repository(db, repository), str(digest))
            db.execute("INSERT OR IGNORE INTO repository_blob (repository, digest) VALUES (?, ?)", row)

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob out of a repository; see `MetaStore`."""
        with self._transaction() as db:
            query = f"DELETE FROM repository_blob WHERE digest = ? AND repository = ({_HELD})"
            return db.execute(query, (str(digest), repository)).rowcount > 0

    def manifest(self, repository: str, digest: Digest) -> StoredManifest | None:
        """Return a manifest; see `MetaStore`."""
        row = self._one(
            "SELECT digest, media_type, body, subject, artifact_type, annotations FROM manifest"
            f" WHERE digest = ? AND repository = ({_HELD})",
            str(digest),
            repository,
        )
        return _stored(row) if row else None

    def put_manifest(self, repository: str, manifest: StoredManifest, tag: str | None) -> None:
        """Store a manifest; see `MetaStore`."""
        with self._transaction() as db:
            number = self._repository(db, repository)
            db.execute(
                "INSERT OR REPLACE INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    str(manifest.digest),
                    manifest.media_type,
                    manifest.body,
                    str(manifest.subject) if manifest.subject else None,
                    manifest.artifact_type,
                    manifest.annotations,
                ),
            )
            if tag is not None:
                db.execute("INSERT OR REPLACE INTO tag VALUES (?, ?, ?)", (number, tag, str(manifest.digest)))

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and its tags; see `MetaStore`."""
        with self._transaction() as db:
            values = (str(digest), repository)
            db.execute(f"DELETE FROM tag WHERE digest = ? AND repository = ({_HELD})", values)
            query = f"DELETE FROM manifest WHERE digest = ? AND repository = ({_HELD})"
            return db.execute(query, values).rowcount > 0

    def tagged(self, repository: str, tag: str) -> Digest | None:
        """Return what a tag points at; see `MetaStore`."""
        row = self._one(f"SELECT digest FROM tag WHERE name = ? AND repository = ({_HELD})", tag, repository)
        return Digest.parse(row[0]) if row else None

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; see `MetaStore`."""
        with self._transaction() as db:
            query = f"DELETE FROM tag WHERE name = ? AND repository = ({_HELD})"
            return db.execute(query, (tag, repository)).rowcount > 0

    def tags(self, repository: str, last: str, count: int) -> list[str] | None:
        """Return tags; see `MetaStore`."""
        row = self._one(_HELD, repository)
        if row is None:
            return None
        query = "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?"
        return [name for (name,) in self._connection().execute(query, (row[0], last, count))]

    def repositories(self, last: str, count: int) -> list[str]:
        """Return repositories; see `MetaStore`."""
        query = "SELECT name FROM repository WHERE name > ? ORDER BY name LIMIT ?"
        return [name for (name,) in self._connection().execute(query, (last, count))]

    def referrers(self, repository: str, subject: Digest) -> Sequence[StoredManifest]:
        """Return referrers; see `MetaStore`."""
        query = (
            "SELECT digest, media_type, body, subject, artifact_type, annotations FROM manifest"
            f" WHERE subject = ? AND repository = ({_HELD}) ORDER BY digest LIMIT 1000"
        )
        return [_stored(row) for row in self._connection().execute(query, (str(subject), repository))]

    def begin_upload(self, repository: str, upload: str) -> None:
        """Remember an upload; see `MetaStore`."""
        with self._transaction() as db:
            db.execute("INSERT INTO upload VALUES (?, ?)", (upload, self._repository(db, repository)))

    def has_upload(self, repository: str, upload: str) -> bool:
        """Say whether an upload is for a repository; see `MetaStore`."""
        return (
            self._one(f"SELECT 1 FROM upload WHERE id = ? AND repository = ({_HELD})", upload, repository) is not None
        )

    def end_upload(self, upload: str) -> None:
        """Forget an upload; see `MetaStore`."""
        with self._transaction() as db:
            db.execute("DELETE FROM upload WHERE id = ?", (upload,))


def _stored(row: Sequence[Any]) -> StoredManifest:
    digest, media_type, body, subject, artifact_type, annotations = row
    known = Digest.parse(subject) if subject else None
    return StoredManifest(Digest.parse(digest), media_type, bytes(body), known, artifact_type, annotations)
