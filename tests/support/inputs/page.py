"""Write docs/formats.md from the rows: ``PYTHONPATH=tests python -m support.inputs.page``; ``make docs`` does.

A test fails when the page is not up to date.
"""
from __future__ import annotations

from pathlib import Path

from streamdream_web.jobs import file_inspection

from support.inputs import GROUPS, INPUTS
from support.inputs.row import Input

PAGE = Path(__file__).parents[3] / "docs/formats.md"
HEAD = """# Files as people have them

<!-- made by `make docs` from tests/support/inputs: edit those files, not this page -->

What becomes of the files that phones, cameras, recorders, editors and archives make. Each row is a test: it makes such
a file, renders it with `--strength 0`, and compares what comes out: the number, the order and the times of the frames,
the length, the sound, the colours of a chart, the orientation, and what is said. There are {rows} rows, of {inputs}
inputs. What is left out, converted or repaired is said in one line, and before a long run where that can be
known.
"""
ON_THE_PAGE = """## On the page

The page takes one file at a time:

| tab | kinds |
|---|---|
| Video | {videos} |
| Picture | {pictures} |

What a file is, its content says, not its name. Of these, codecs of phones, cameras and recorders are decoded; others
are refused with a line. HDR is mapped to SDR, as with `--sdr`: few browsers play HDR. What is transparent in a picture
becomes black. A file that the command refuses is refused with the same words.
"""


def text() -> str:
    """The whole page."""
    parts = [HEAD.format(rows=len(INPUTS), inputs=len({row.name for row in INPUTS.values()}))]
    for title, rows in GROUPS.items():
        lines = ["| input | such as | output | what becomes of it |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}\n", *lines, *_table(rows), ""]))
    parts.append(ON_THE_PAGE.format(videos=file_inspection.listed(file_inspection.UPLOADABLE_VIDEOS),
                                    pictures=file_inspection.listed(file_inspection.UPLOADABLE_PICTURES)))
    return "\n".join(parts)


def _table(rows: list[Input]) -> list[str]:
    lines, last = [], ""
    for row in rows:
        about = "" if row.about == "the same" else row.about
        name = "" if row.name == last and not about else f"`{row.name}`"
        last = row.name
        lines.append(f"| {about} | {name} | {_output(row)} | {row.becomes} |")
    return lines


def _output(row: Input) -> str:
    suffix = f".{row.to.rpartition('.')[2]}"
    command = "`image`, " if row.command == "image" else ""
    return f"{command}`{' '.join([suffix, *row.flags])}`"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
