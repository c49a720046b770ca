"""Files as people have them, uploaded on the page: right, or refused with the words of the command."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.jobs import file_inspection
from streamdream_web.jobs.queue import Job
from support.commands import here
from support.inputs import INPUTS
from support.inputs.holds import check
from support.inputs.rendered import Rendered
from support.inputs.row import Input
from support.web_client import Running
from support.web_jobs import wait_for
from support.web_visitor import Page

CHEAP = {"layers": "conv2d_2", "octaves": 1, "steps": 1, "warmup_steps": 0, "flow": "none", "strength": 0,
         "field_height": 48}
"""By the fields of the panel."""
NOT_OF_SDR = {"hdr", "colors", "codec", "tag", "mastering"}
ALWAYS = {"hlg.mov", "alpha.mov", "upright.mp4", "joined.ts", "windows.wmv", "tape.dv", "subtitled.mkv", "text.mp4",
          "upright.jpg", "heic-inside.jpg", "cut-off.jpg"}
"""One of each kind. Each takes a second, as its inspection is a process of its own: all others run with `make soak`."""


def uploadable(row: Input) -> bool:
    """Whether the page has a place for it: one file, with the settings of the page."""
    suffix = Path(row.name).suffix
    is_picture = row.command == "image"
    kinds: Any = file_inspection.UPLOADABLE_PICTURES if is_picture else file_inspection.UPLOADABLE_VIDEOS
    return suffix in kinds and "%" not in row.name and "*" not in row.name and not row.flags and (
        row.to in ("mp4", "dream.png"))


ROWS = {key: row for key, row in INPUTS.items() if uploadable(row)}


@pytest.fixture(scope="module")
def page(web: Running) -> Iterator[Page]:
    opened = Page(web)
    with closing(opened.visitor):
        yield opened


@pytest.mark.parametrize("key", [
    pytest.param(key, marks=() if row.name in ALWAYS else pytest.mark.soak)
    for key, row in ROWS.items()])
def test_an_upload_is_right_or_refused_with_the_words_of_the_command(
    key: str, page: Page, web: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ROWS[key]
    source = Path(row.prepare(tmp_path)[0])
    status, answer = page.visitor.upload(source.name, source.read_bytes())
    if status != 200:
        assert_said_by_the_command(answer["error"], row, source, tmp_path, capsys)
        return
    job, result = run(page, web, answer["token"], "picture" if row.command == "image" else "video", tmp_path)
    if result is None:
        assert_said_by_the_command(job.error, row, source, tmp_path, capsys)
        return
    said = "".join(f"warning: {warning}\n" for warning in job.warnings)
    check(Rendered(source, result, 0, said), on_the_page(row.holds))


def run(page: Page, web: Running, token: str, tab: str, folder: Path) -> tuple[Job, Path | None]:
    """Start the job by the page's event; fetch its result by the page's route."""
    kept, start = page.event(f"{tab}-drop", "upload"), page.event(f"{tab}-start", "click")
    page.put(f"{tab}-drop", json.dumps({"token": token}))
    assert '"success":true' in page.send(kept)
    page.set(CHEAP, start)
    told = page.send(start)
    assert '"success":true' in told, told
    queue = web.jobs_service.videos if tab == "video" else web.jobs_service.stills
    job = wait_for(max(queue._jobs.values(), key=lambda job: job.number))
    if job.state != "done":
        return job, None
    status, data = page.visitor.ask("GET", f"/results/{job.token}")
    assert status == 200
    result = folder / f"result{job.result.suffix if job.result else ''}"
    result.write_bytes(data)
    return job, result


def on_the_page(holds: dict[str, Any]) -> dict[str, Any]:
    """What holds there: results play in browsers, so HDR is mapped, and said; pictures are kept without alpha."""
    if "either" in holds:
        return {"either": [on_the_page(case) for case in holds["either"]]}
    if holds.get("alpha") == (0, 1):
        holds = {**holds, "alpha": (1, 1)}
    if holds.get("hdr") in ("hlg", "pq"):
        kept = {name: value for name, value in holds.items() if name not in NOT_OF_SDR}
        return {**kept, "hdr": "mapped", "says": ("HLG|PQ|HDR|SDR|tone",)}
    return holds


def assert_said_by_the_command(error: str, row: Input, source: Path, folder: Path, capsys: pytest.CaptureFixture[str]
                               ) -> None:
    """The command refuses the file, too, and every word of the page's line is in its line, but for the file's name; or
    its codec is not in the page's list, which is shorter: old decoders have faults that strangers know.
    """
    if re.fullmatch(r"the video codec \w+ is not accepted; H.264 in an MP4 is", error):
        return
    output = row.output(folder / "out")
    output.parent.mkdir()
    said = here(capsys, *row.arguments([str(source)], output))
    line = next((line for line in said.stderr.splitlines() if line.startswith("error: ")), "")
    assert line, f"only the page refuses it: {error}"
    words = re.sub(r"^(the video|this file|this picture)\b", "", error).strip()
    assert words in line.replace(str(source), ""), f"{error!r} is not {line!r}"
