"""What a build that is answered from a record shows: the events that it had when it was carried out."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagetool.build.unchanged import Answer, Watch
    from imagetool.progress import Event, Observer


def noting(watch: Watch) -> Observer:
    """Return an observer that notes what will be shown when the build need not be carried out."""
    from imagetool.progress import BuildPlanned, CheckFound, Note, StepFinished, StepStarted

    def note(event: Event) -> None:
        match event:
            case StepStarted(number=number, total=total, name=name, stage=stage):
                watch.step(number, total, name, stage)
            case BuildPlanned(platform=platform, total=total, steps=steps):
                watch.planned(platform, total, [[one.number, one.stage, one.name, one.needs] for one in steps])
            case StepFinished(number, cached, layer, seconds, size, key):
                watch.done(number, layer, size, key, cached=cached, seconds=seconds)
            case Note(text=text, level=level):
                watch.note(text, level)
            case CheckFound(rule=rule, text=text, file=file, line=line):
                watch.check(rule, text, file, line)

    return note


def replay(answer: Answer, progress: str) -> None:
    """Show what the build showed, its steps as cached ones; `lines.answered_lines` is the same in plain lines."""
    from imagetool.cli.display import display

    with display(progress) as observer:
        for event in _events(answer):
            observer(event)


def draw(answer: Answer, path: str, *, title: str, redact: Callable[[str], str]) -> None:
    """Write the page of a build that was not carried out; raises StorageError."""
    from imagetool.cli.timelinepage import drawn

    with drawn(path, title, redact) as timeline:
        timeline.answered = True
        timeline.identity = answer.identity
        for event in _events(answer):
            timeline(event)


def _events(answer: Answer) -> Iterator[Event]:
    from imagetool.progress import BuildPlanned, CheckFound, Note, PlannedStep, StepFinished, StepStarted

    for kind, *fields in answer.shown:
        if kind == "step":
            yield StepStarted(*fields)
        elif kind == "note":
            yield Note(*fields)
        elif kind == "check":
            yield CheckFound(*fields)
        elif kind == "plan":
            platform, total, steps = fields
            planned = (PlannedStep(number, stage, name, tuple(needs)) for number, stage, name, needs in steps)
            yield BuildPlanned(platform, total, tuple(planned))
        else:
            number, layer, size, key, _, _ = fields
            yield StepFinished(number, bool(layer), layer, 0.0, size, key)
