"""`tags` and `delete`: what a registry has of a repository."""

from __future__ import annotations

from collections.abc import Iterator

from imagetool.errors import UsageError
from imagetool.oci.digest import Digest
from imagetool.oci.reference import Reference
from imagetool.verbs.workplace import Workplace

_PREFIX = "docker://"


def tags(name: str, place: Workplace) -> Iterator[str]:
    """Yield the tags of a repository, in the registry's order. Raises UsageError for a name with a tag."""
    reference = Reference.parse(name.removeprefix(_PREFIX))
    if reference.tag or reference.digest:
        raise UsageError(f"{name!r}: name the repository alone, {reference.name}")
    with place.repository(reference.registry, reference.repository) as repository:
        yield from repository.tags()


def delete(name: str, place: Workplace) -> Digest:
    """Delete an image, and every tag that means it, from its registry; return its digest.

    Raises UsageError for what is not said to be a registry's, NotFound, Unsupported.
    """
    if not name.startswith(_PREFIX):
        raise UsageError(f"{name!r}: write docker://NAME for a registry's image; `imagetool rmi` removes local ones")
    reference = Reference.parse(name.removeprefix(_PREFIX)).with_default_tag()
    with place.repository(reference.registry, reference.repository) as repository:
        digest: Digest = reference.digest or repository.resolve(reference.target).digest
        repository.delete(digest)
    return digest
