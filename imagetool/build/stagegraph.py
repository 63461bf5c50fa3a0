"""A Dockerfile's stages as a graph: what each begins with and takes files from, built or not; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from imagetool.build.graph import SCRATCH, Graph, PlannedStage, source_stage, step_name
from imagetool.dockerfile import Copy, Instruction, Run
from imagetool.values import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Node:
    """A stage, or what stages are made from.

    kind: stage, image, scratch or context (what --build-context names).
    steps: of a stage, the texts of its instructions, FROM first.
    reached: whether the build of the target needs it.
    """

    id: str
    kind: str
    name: str
    steps: tuple[str, ...] = ()
    platform: str = ""
    reached: bool = False
    target: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """That a stage uses another node, from its step number `step` (from 0) on.

    kind: from, copy or mount.
    """

    source: str
    stage: str
    kind: str
    step: int


@dataclass(frozen=True, slots=True)
class StageGraph:
    """Sources in the order of their use, then stages in the order of the Dockerfile; edges in that of the steps."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    platform: str = field(default="")

    def tree(self) -> dict[str, Any]:
        """Return the graph as JSON has it."""
        nodes = [{name: getattr(node, name) for name in node.__slots__} for node in self.nodes]
        edges = [{name: getattr(edge, name) for name in edge.__slots__} for edge in self.edges]
        return {
            "platform": self.platform,
            "nodes": [{**node, "steps": list(node["steps"])} for node in nodes],
            "edges": edges,
        }

    def dot(self) -> Iterator[str]:
        """Yield the lines of the graph in the language of Graphviz."""
        yield "digraph stages {"
        yield "  rankdir=LR; node [shape=box, fontname=monospace];"
        shapes = {"image": "cylinder", "scratch": "cylinder", "context": "folder"}
        for node in self.nodes:
            lines = [node.name, *node.steps]
            label = "".join(f"{_quoted(line.partition(chr(10))[0])}\\l" for line in lines)
            style = "bold" if node.target else "solid" if node.reached else "dashed"
            shape = f", shape={shapes[node.kind]}" if node.kind in shapes else ""
            color = "" if node.reached else ", color=gray, fontcolor=gray"
            yield f'  "{_quoted(node.id)}" [label="{label}", style={style}{shape}{color}];'
        styles = {"from": "bold", "copy": "solid", "mount": "dashed"}
        for edge in self.edges:
            about = f"style={styles[edge.kind]}, tooltip={edge.kind}"
            yield f'  "{_quoted(edge.source)}" -> "{_quoted(edge.stage)}" [{about}];'
        yield "}"


def stage_graph(graph: Graph, *, platform: str = "") -> StageGraph:
    """Return the graph of all stages of a plan. Raises DockerfileError for a stage number that cannot be."""
    sources: dict[str, Node] = {}
    stages: list[Node] = []
    edges: list[Edge] = []
    for planned in graph.stages:
        reached = planned.number in graph.needed
        instructions = (planned.stage.base, *planned.stage.instructions)
        own = str(planned.platform)
        stages.append(
            Node(
                f"stage-{planned.number}",
                "stage",
                planned.label,
                tuple(step_name(instruction) for instruction in instructions),
                own if own != platform else "",
                reached,
                planned.number == graph.target,
            )
        )
        for step, instruction in enumerate(instructions):
            for kind, used in _used(graph, planned, instruction):
                source = f"stage-{used}" if isinstance(used, int) else used
                if isinstance(used, str):
                    known = sources.get(used) or _source(used, graph)
                    sources[used] = replace(known, reached=known.reached or reached)
                edges.append(Edge(source, stages[-1].id, kind, step))
    return StageGraph((*sources.values(), *stages), tuple(dict.fromkeys(edges)), platform)


def _used(graph: Graph, planned: PlannedStage, instruction: Instruction) -> Iterator[tuple[str, int | str]]:
    """Yield how an instruction uses what: a stage by its number, all else by name."""
    if instruction is planned.stage.base:
        yield "from", planned.base
    elif isinstance(instruction, Copy) and instruction.from_ is not None:
        yield "copy", _resolved(graph, planned, instruction.from_, instruction)
    elif isinstance(instruction, Run):
        for mount in instruction.mounts:
            if mount.from_:
                yield "mount", _resolved(graph, planned, mount.from_, instruction)


def _resolved(graph: Graph, planned: PlannedStage, name: str, at: Instruction) -> int | str:
    index = source_stage(graph.stages, name, planned.number, at, named=graph.named)
    return name if index is None else index


def _source(name: str, graph: Graph) -> Node:
    """Return the node of what is no stage; a stage cannot have its id, for that is not all a name may be."""
    kind = "context" if name.lower() in graph.named else SCRATCH if name == SCRATCH else "image"
    return Node(name, kind, name)


def _quoted(text: str) -> str:
    """Return an untrusted text for between the quotes of Graphviz."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown.replace("\\", "\\\\").replace('"', '\\"')
