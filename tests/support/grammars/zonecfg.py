"""A reader of zonecfg command files, written from zonecfg(8): scopes, what may be set in each, verify."""

from __future__ import annotations

GLOBAL = {"zonepath", "brand", "autoboot", "ip-type", "limitpriv", "pool", "bootargs", "hostid", "fs-allowed"}
RESOURCES = {
    "attr": ({"name", "type", "value"}, {"name", "type", "value"}),
    "net": ({"physical"}, {"physical", "address", "defrouter", "allowed-address", "global-nic"}),
    "fs": ({"dir", "special", "type"}, {"dir", "special", "type", "raw", "options"}),
    "capped-memory": (set[str](), {"physical", "swap", "locked"}),
    "capped-cpu": ({"ncpus"}, {"ncpus"}),
    "rctl": ({"name", "value"}, {"name", "value"}),
    "dataset": ({"name"}, {"name"}),
    "device": ({"match"}, {"match"}),
}


class ZonecfgError(Exception):
    pass


def parse(text: str) -> tuple[dict[str, str], list[tuple[str, dict[str, str]]]]:
    """Return properties and resources; raises ZonecfgError for what zonecfg would refuse."""
    properties: dict[str, str] = {}
    resources: list[tuple[str, dict[str, str]]] = []
    scope: tuple[str, dict[str, str]] | None = None
    created = committed = False
    for number, line in enumerate(filter(None, map(str.strip, text.split("\n"))), 1):
        verb, _, rest = line.partition(" ")
        if committed and verb != "exit":
            raise ZonecfgError(f"line {number}: {verb} after commit")
        if verb == "create":
            created = True
        elif not created:
            raise ZonecfgError(f"line {number}: nothing is created yet")
        elif verb == "set":
            key, equals, value = rest.partition("=")
            known = GLOBAL if scope is None else RESOURCES[scope[0]][1]
            if not equals or key not in known or not value:
                raise ZonecfgError(f"line {number}: cannot set {rest!r} here")
            if any(char in value for char in " \t();=") and not (value[0] == value[-1] == '"'):
                raise ZonecfgError(f"line {number}: {value!r} must be quoted")
            (properties if scope is None else scope[1])[key] = value
        elif verb == "add" and scope is None:
            if rest not in RESOURCES:
                raise ZonecfgError(f"line {number}: no resource {rest!r}")
            scope = (rest, {})
        elif verb == "end" and scope is not None:
            if missing := RESOURCES[scope[0]][0] - scope[1].keys():
                raise ZonecfgError(f"line {number}: {scope[0]} lacks {sorted(missing)}")
            resources.append(scope)
            scope = None
        elif verb in ("verify", "commit") and scope is None:
            if not properties.get("zonepath", "").startswith("/"):
                raise ZonecfgError(f"line {number}: zonepath is missing or relative")
            committed = verb == "commit"
        elif verb != "exit":
            raise ZonecfgError(f"line {number}: {verb!r} is no command here")
    if scope is not None or not committed:
        raise ZonecfgError("the file ends too early")
    return properties, resources
