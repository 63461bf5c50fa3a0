CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER NOT NULL);
CREATE TABLE repository_blob (
  repository INTEGER NOT NULL REFERENCES repository (id),
  digest TEXT NOT NULL REFERENCES blob (digest),
  PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
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
CREATE INDEX manifest_subject ON manifest (repository, subject) WHERE subject IS NOT NULL;
CREATE TABLE tag (
  repository INTEGER NOT NULL REFERENCES repository (id),
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE TABLE upload (id TEXT PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repository (id)) WITHOUT ROWID;
