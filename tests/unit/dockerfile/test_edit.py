"""The adapter over dockerfile-parse: what the stock class gets wrong must be right, and edits must stay small."""

from __future__ import annotations

import io

import pytest
from dockerfile_parse import DockerfileParser

from imagetool.dockerfile.edit import Dockerfile
from imagetool.errors import DockerfileError

HEREDOC = """# syntax=docker/dockerfile:1
ARG base=alpine
FROM --platform=linux/amd64 ${base:-x}:${tag:-3} AS build
RUN <<X
FROM evil
LABEL from=body
X
LABEL a=b
FROM build
CMD one
"""


def editable(text: str | bytes, **options: object) -> tuple[Dockerfile, io.BytesIO]:
    file = io.BytesIO(text.encode() if isinstance(text, str) else text)
    return Dockerfile(fileobj=file, **options), file


def test_a_heredoc_body_is_not_taken_for_instructions() -> None:
    dockerfile, _ = editable(HEREDOC)
    assert [(entry["instruction"], entry["startline"], entry["endline"]) for entry in dockerfile.structure] == [
        ("COMMENT", 0, 0),
        ("ARG", 1, 1),
        ("FROM", 2, 2),
        ("RUN", 3, 6),
        ("LABEL", 7, 7),
        ("FROM", 8, 8),
        ("CMD", 9, 9),
    ]
    assert "evil" in str(DockerfileParser(fileobj=io.BytesIO(HEREDOC.encode())).parent_images)
    assert dockerfile.parent_images == ["alpine:3", "build"]
    assert dockerfile.is_multistage
    assert dockerfile.cmd == "one"


def test_build_arguments_choose_the_parent_image() -> None:
    dockerfile, _ = editable(HEREDOC, build_args={"base": "debian"})
    assert dockerfile.parent_images[0] == "debian:3"


def test_a_base_image_is_replaced_and_nothing_else() -> None:
    dockerfile, file = editable(HEREDOC)
    dockerfile.parent_images = ["debian:13", "build"]
    assert file.getvalue().decode() == HEREDOC.replace("${base:-x}:${tag:-3}", "debian:13")
    dockerfile.baseimage = "scratch"
    assert file.getvalue().decode().endswith("FROM scratch\nCMD one\n")
    with pytest.raises(ValueError, match="1 images for 2 stages"):
        dockerfile.parent_images = ["x"]


def test_labels_and_lines_are_added_after_heredocs() -> None:
    dockerfile, file = editable("FROM a\nRUN <<X\nFROM evil\nX\nLABEL a=b\n")
    dockerfile.labels["a"] = "c d"
    dockerfile.add_lines("USER u")
    assert file.getvalue().decode() == "FROM a\nRUN <<X\nFROM evil\nX\nLABEL a='c d'\nUSER u\n"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffFROM a\n",
        "# check=skip=all\n# escape=`\nFROM a\nRUN b `\nc\n",
        "FROM a\nRUN\\\n b\n",
        "FROM a\nRUN b \\\n\nc\n",
        "FROM a\nRUN b \\\\\nUSER c\n",
        "FROM a\nRUN b\x0bc\x85d\n",
    ],
)
def test_what_the_stock_parser_misreads_is_read_right(text: str) -> None:
    dockerfile, _ = editable(text)
    entries = [entry for entry in dockerfile.structure if entry["instruction"] != "COMMENT"]
    assert {entry["instruction"] for entry in entries} <= {"FROM", "RUN", "USER"}
    assert dockerfile.parent_images == ["a"]
    assert "".join(entry["content"] for entry in dockerfile.structure) == text


@pytest.mark.parametrize("text", [b"FROM a\nRUN <<X\n", b"FROM \xff\n", b"FROM ${a\n", b"ARG a=${\nFROM b\n"])
def test_a_file_that_cannot_be_read_is_a_dockerfile_error(text: bytes) -> None:
    dockerfile, _ = editable(text)
    with pytest.raises(DockerfileError):
        _ = (dockerfile.structure, dockerfile.parent_images)


def test_an_empty_file_has_no_structure() -> None:
    assert editable("")[0].structure == []
