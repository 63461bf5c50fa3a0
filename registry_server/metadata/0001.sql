CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, locator TEXT NOT NULL UNIQUE);
CREATE TABLE repository_blob (
  repository INTEGER NOT NULL REFERENCES repository (id),
  digest TEXT NOT NULL REFERENCES blob (digest),
  last_ref REAL NOT NULL,
  PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX repository_blob_digest ON repository_blob (digest);
CREATE TABLE manifest (
  repository INTEGER NOT NULL REFERENCES repository (id),
  digest TEXT NOT NULL,
  media_type TEXT NOT NULL,
  body BLOB NOT NULL,
  subject TEXT,
  artifact_type TEXT NOT NULL,
  annotations TEXT NOT NULL,
  PRIMARY KEY (repository, digest)
);
CREATE INDEX manifest_subject ON manifest (repository, subject, digest) WHERE subject IS NOT NULL;
CREATE TABLE manifest_ref (
  repository INTEGER NOT NULL,
  child TEXT NOT NULL,
  parent TEXT NOT NULL,
  PRIMARY KEY (repository, child, parent),
  FOREIGN KEY (repository, parent) REFERENCES manifest (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX manifest_ref_parent ON manifest_ref (repository, parent);
CREATE TABLE tag (
  repository INTEGER NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (repository, name),
  FOREIGN KEY (repository, digest) REFERENCES manifest (repository, digest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX tag_digest ON tag (repository, digest);
CREATE TABLE garbage (locator TEXT PRIMARY KEY) WITHOUT ROWID;
