"""The graph of a Dockerfile's stages: what each is made from, what is built, and how Graphviz is told."""

from __future__ import annotations

import re

from imagetool.build.graph import plan
from imagetool.build.stagegraph import Edge, StageGraph, stage_graph
from imagetool.dockerfile import parse
from imagetool.oci.platform import Platform

_DOCKERFILE = """\
ARG VERSION=1
FROM golang:${VERSION} AS base
RUN go mod download
FROM --platform=linux/arm64 node AS web
RUN npm ci
FROM base AS server
COPY --from=web /dist /static
RUN --mount=type=bind,from=web,target=/x --mount=type=bind,from=tools:1,target=/t --mount=type=cache,target=/c go
FROM base AS test
RUN go test
FROM scratch
COPY --from=server /server /
COPY --from=server /other /
COPY --from=Docs / /docs
COPY --from=busybox /bin/sh /bin/
LABEL title="say \\"hi\\" \\\\ there"
"""


def _graph(target: str | None = None, text: str = _DOCKERFILE) -> StageGraph:
    amd = Platform.parse("linux/amd64")
    named = frozenset({"docs"})
    planned = plan(parse(text.encode(), file="D"), build_args={}, target=target, platform=amd, host=amd, named=named)
    return stage_graph(planned, platform="linux/amd64")


def test_every_way_to_use_something_is_an_edge_from_it_to_the_step() -> None:
    graph = _graph()
    assert graph.edges == (
        Edge("golang:1", "stage-0", "from", 0),
        Edge("node", "stage-1", "from", 0),
        Edge("stage-0", "stage-2", "from", 0),
        Edge("stage-1", "stage-2", "copy", 1),
        Edge("stage-1", "stage-2", "mount", 2),
        Edge("tools:1", "stage-2", "mount", 2),
        Edge("stage-0", "stage-3", "from", 0),
        Edge("scratch", "stage-4", "from", 0),
        Edge("stage-2", "stage-4", "copy", 1),
        Edge("stage-2", "stage-4", "copy", 2),
        Edge("Docs", "stage-4", "copy", 3),
        Edge("busybox", "stage-4", "copy", 4),
    )
    kinds = {node.id: node.kind for node in graph.nodes}
    assert (kinds["Docs"], kinds["scratch"], kinds["busybox"], kinds["stage-4"]) == (
        "context",
        "scratch",
        "image",
        "stage",
    )
    assert {node.name: node.platform for node in graph.nodes if node.platform} == {"web": "linux/arm64"}


def test_what_the_target_does_not_need_is_not_reached() -> None:
    assert [node.name for node in _graph().nodes if not node.reached] == ["test"]
    graph = _graph("web")
    assert [node.name for node in graph.nodes if node.reached] == ["node", "web"]
    assert [node.name for node in graph.nodes if node.target] == ["web"]


def test_the_tree_has_all_of_it() -> None:
    tree = _graph().tree()
    assert tree["nodes"][-1]["steps"][:2] == ["FROM scratch", "COPY --from=server /server /"]
    assert tree["edges"][3] == {"source": "stage-1", "stage": "stage-2", "kind": "copy", "step": 1}


def test_graphviz_is_told_hostile_texts_as_texts() -> None:
    lines = list(_graph(text=_DOCKERFILE + 'LABEL a="];\\nevil -> \\"x"\n').dot())
    assert (lines[0], lines[-1]) == ("digraph stages {", "}")
    quoted = r'"(?:[^"\\]|\\.)*"'
    for line in lines[2:-1]:
        attributes = rf"\[(?:[a-z]+=(?:{quoted}|[a-z]+)(?:, )?)+\]"
        assert re.fullmatch(rf"  {quoted}(?: -> {quoted})? {attributes};", line), line
