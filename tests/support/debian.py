"""Images on a real Debian root filesystem, with everything that is hard about layers in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.command import imagetool

DOCKERFILE = """\
FROM debian AS build
RUN groupadd -g 700 team && useradd -m -u 701 -g team -G audio,video app
WORKDIR /srv/app
COPY --chown=app:team files/ ./
COPY pinger /bin/
RUN cp -a /bin/pinger /usr/local/bin/pinger2 && cp /bin/true setuid && chmod 4755 setuid \\
 && ln setuid hard && ln -s ../app/hard soft && mkfifo fifo
RUN mkdir -p swap/dir/deep gone/deep refilled/old && echo 1 > swap/file && echo 2 > swap/dir/deep/file \\
 && echo 3 > gone/deep/file && echo 4 > removed && echo 5 > refilled/old/file && mkdir linked \\
 && echo 6 > first && touch -d '2001-02-03 04:05:06.789' old
RUN rm -r removed gone swap/dir swap/file linked refilled && mkdir swap/file && echo in > swap/file/inside \\
 && echo now > swap/dir && ln -s swap linked && mkdir refilled && echo new > refilled/new && ln first second
USER app
RUN id -un > ~/who && id -Gn >> ~/who && umask >> ~/who && pwd >> ~/who

FROM debian
COPY --from=build --chown=700 /srv/app/hard /usr/bin/
COPY --from=build / /
USER app:audio
RUN id -un > ~/again && id -Gn >> ~/again
CMD ["cat", "/home/app/who"]
"""


def build_images(root: Path, context: Path) -> None:
    """Build app:1, and stage:1 of its first stage, in a store that has debian:latest."""
    (context / "files").mkdir(parents=True)
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "files/plain").write_text("plain\n")
    (context / "files/link").symlink_to("plain")
    subprocess.run(["cp", "/bin/true", context / "pinger"], check=True)
    subprocess.run(["setcap", "cap_net_raw+ep", context / "pinger"], check=True)
    imagetool("build", "-t", "app:1", context, root=root)
    imagetool("build", "-t", "stage:1", "--target", "build", context, root=root)
