"""One line for each request, on standard error, as operators and their tools expect it."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, Literal

from imagetool.distribution.headers import printable
from registry_server.message import Request

Form = Literal["plain", "json", "none"]


class AccessLog:
    """Writes requests: `plain` is the combined log format with the seconds taken, `json` an object a line.

    What a client sent is written without control characters, so no line can pretend to be another.
    """

    def __init__(self, form: Form = "plain") -> None:
        self._form = form

    def write(self, scope: Any, request: Request, status: int, size: int, seconds: float) -> None:
        """Write one request; `scope` is granian's, for what is not in `request`."""
        if self._form == "none":
            return
        line = _json if self._form == "json" else _plain
        target = scope.path + (f"?{scope.query_string}" if scope.query_string else "")
        fields = {
            "client": scope.client.rpartition(":")[0],
            "method": printable(request.method, 20),
            "target": printable(target, 1000),
            "protocol": f"HTTP/{scope.http_version}",
            "status": status,
            "size": size,
            "seconds": round(seconds, 4),
            "agent": printable(request.headers.get("user-agent", ""), 200),
        }
        sys.stderr.write(line(fields) + "\n")


def _json(fields: dict[str, object]) -> str:
    return json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields})


def _plain(fields: dict[str, object]) -> str:
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    request = f"{fields['method']} {fields['target']} {fields['protocol']}".replace('"', "%22")
    agent = str(fields["agent"]).replace('"', "'")
    return (
        f'{fields["client"]} - - [{when}] "{request}" {fields["status"]} {fields["size"]} "-" "{agent}"'
        f" {fields['seconds']}"
    )
