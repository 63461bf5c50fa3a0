"""Whatever an image's config says, what is written for other systems is valid, or it is one of our errors."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.errors import ImagetoolError, InvalidDocument
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.platform import Platform
from imagetool.runtime import translate
from imagetool.runtime.bundles import jail, lxc, nspawn
from imagetool.runtime.bundles.configshape import check_config
from imagetool.runtime.imageprocess import annotations_of, process_of, volumes_of
from imagetool.runtime.spec import Mount, build_step_spec
from imagetool.runtime.users import User
from tests.support.grammars import jailconf

_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
_WORDS = st.lists(_TEXT, max_size=4).map(tuple)
_RUN = st.builds(
    RunConfig,
    user=st.one_of(st.sampled_from(["", "0", "app", "app:app", "7:8", ":", "app:", "99999999999"]), _TEXT),
    env=_WORDS,
    entrypoint=st.none() | _WORDS,
    cmd=st.none() | _WORDS,
    working_dir=_TEXT,
    exposed_ports=_WORDS,
    volumes=_WORDS,
    labels=st.dictionaries(_TEXT, _TEXT, max_size=3),
    stop_signal=_TEXT,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
PASSWD, GROUP = b"app:x:7:8::/home/app:/bin/sh\n", b"app:x:8:\n"


def _spec(run: RunConfig) -> dict[str, Any]:
    """Return the config.json of an image, as a bundle has it; raises one of our errors."""
    config = ImageConfig.make(platform=Platform(), run=run, diff_ids=[], history=[], created="")
    process = process_of(config, passwd=PASSWD, group=GROUP)
    mounts = [Mount(path, "bind", "volumes/x", ("rbind", "rw")) for path in volumes_of(config)]
    spec = build_step_spec(
        args=process.args, env=process.env, cwd=process.cwd, user=process.user, hostname="box", mounts=mounts
    )
    return {**json.loads(spec.json()), "annotations": annotations_of(config)}


@settings(max_examples=600, deadline=None)
@given(run=_RUN)
def test_any_image_gives_a_valid_config_or_one_of_our_errors(run: RunConfig) -> None:
    try:
        tree = _spec(run)
        check_config(tree)
    except ImagetoolError:
        return
    assert all("\0" not in word for word in tree["process"]["args"])


@settings(max_examples=400, deadline=None)
@given(run=_RUN)
def test_any_image_gives_settings_of_one_meaning_or_one_of_our_errors(run: RunConfig) -> None:
    """No line break or quote of an image can begin a setting of its own."""
    try:
        process = _spec(run)["process"]
    except ImagetoolError:
        return
    args, env = process["args"], process["env"]
    text = jail.jail_conf("box", [("exec.start", word or "x") for word in args])
    assert jailconf.parse(text)[0].parameters == {"exec.start": [word or "x" for word in args]}
    for write in (
        lambda: nspawn.settings({"Exec": [("Environment", entry) for entry in env]}, what="box.nspawn"),
        lambda: lxc.config([("lxc.environment", entry) for entry in env]),
    ):
        try:
            lines = write().split("\n")
        except ImagetoolError:
            continue
        begins = ("[Exec]", "Environment=", "lxc.environment = ")
        assert all(not line or line.startswith(begins) for line in lines)


@settings(max_examples=600, deadline=None)
@given(data=st.data(), value=_JSON)
def test_a_config_changed_anywhere_is_valid_or_refused(data: st.DataObject, value: Any) -> None:
    """The shape never raises anything but our error, and what it lets pass, other programs can be told."""
    tree = copy.deepcopy(_BASE)
    inner: Any = tree
    while True:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if isinstance(inner[key], dict | list) and inner[key] and data.draw(st.booleans()):
            inner = inner[key]
            continue
        inner[key] = value
        break
    try:
        check_config(tree)
    except InvalidDocument:
        return
    json.dumps(tree)


_BASE = json.loads(build_step_spec(args=("/bin/sh",), env={"A": "b"}, cwd="/", user=User(), hostname="box").json())


@settings(max_examples=400, deadline=None)
@given(
    places=st.lists(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1), max_size=3
    )
)
def test_no_mount_point_can_add_a_line_to_lxcs_configuration(places: list[str]) -> None:
    mounts = [Mount(f"/{place}", "bind", f"/src/{place}", ("rbind", "ro")).tree() for place in places]
    spec = {**copy.deepcopy(_BASE), "mounts": mounts}
    lines = "".join(f"{key} = {value}\n" for key, value in translate._lxc_pairs(spec, "/bundle")).split("\n")
    assert all(not line or line.startswith("lxc.") for line in lines)
    assert sum(line.startswith("lxc.mount.entry") for line in lines) == len(places)
