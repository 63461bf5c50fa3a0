"""One image, built by us, that says what it finds: environment, identity, directory, volume, arguments."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.command import imagetool

DOCKERFILE = """\
FROM busybox
RUN mkdir -p /etc /data /srv/app /sbin \\
 && printf 'root:x:0:0:root:/root:/bin/sh\\napp:x:1234:1234::/srv/app:/bin/sh\\n' > /etc/passwd \\
 && printf 'root:x:0:\\napp:x:1234:\\nextra:x:77:app\\n' > /etc/group \\
 && echo seed > /data/seed && chown -R 1234:77 /data && chmod 750 /data && ln -s /bin/busybox /sbin/init
COPY speak /srv/app/speak
ENV GREETING="hello there" QUOTE="it's \\"q\\""
WORKDIR /srv/app
VOLUME /data
EXPOSE 8080
LABEL org.example.note="a label"
STOPSIGNAL SIGTERM
ENTRYPOINT ["/bin/sh", "/srv/app/speak"]
CMD ["one two", "it's"]
"""
SPEAK = """\
echo "greeting <$GREETING> quote <$QUOTE> home <$HOME>"
echo "id $(id -u):$(id -g) in $(pwd) with $(cat /data/seed)"
for a; do echo "argument <$a>"; done
exit 7
"""
#: What the image says when it is run as it wants, and the status it ends with.
SAID = """\
greeting <hello there> quote <it's "q"> home </root>
id 0:0 in /srv/app with seed
argument <one two>
argument <it's>
"""
SAID_AS_APP = SAID.replace("</root>", "</srv/app>").replace("0:0", "1234:1234")
STATUS = 7


@dataclass(frozen=True)
class App:
    """The image: its name, of which `label` is the last part, in a store of its own."""

    root: Path
    name: str
    label: str

    def bundle(self, place: Path, system: str, *options: str) -> Path:
        imagetool("bundle", self.name, place, "--for", system, *options, root=self.root)
        return place


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    if not shutil.which("busybox"):
        pytest.skip("needs busybox-static")
    folder = tmp_path_factory.mktemp("systems")
    (folder / "speak").write_text(SPEAK)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    label = f"speak-{secrets.token_hex(4)}"  # names of containers are the host's: other checkouts test here too
    name = f"example.test/team/{label}:1"
    imagetool("base", "busybox", root=folder / "store")
    imagetool("build", "-t", name, "--network", "none", folder, root=folder / "store")
    return App(folder / "store", name, label)
