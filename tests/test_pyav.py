"""PyAV's releases, 18 (Python 3.11) and 19 (later ones): whichever is here, a file opens and is copied."""
from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from support.clips import Clip, make

from streamdream.media import pyav
from streamdream.media.sinks.registry import open_sink
from streamdream.media.sources.video import open_source
from streamdream.settings import RenderSettings

GONE_IN_19 = {"metadata_encoding", "metadata_errors", "stream_options"}


def test_a_tag_that_is_not_utf8_is_copied_byte_for_byte(tmp_path: Path) -> None:
    """As tags of old programs are: this one is Latin-1."""
    path, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    make(path, Clip(4, metadata={"title": "Caf~ Dr~m"}))
    path.write_bytes(path.read_bytes().replace(b"Caf~ Dr~m", b"Caf\xe9 Dr\xf6m"))
    with open_source(str(path)) as source, open_sink(str(output), source, RenderSettings(), False, str(path)) as sink:
        for frame in source:
            sink.write(frame.image, frame)
    assert b"Caf\xe9 Dr\xf6m" in output.read_bytes()


@pytest.mark.parametrize("release", ["18.1.0", "19.0.2", "20.1.0"])
def test_each_release_is_asked_for_what_it_knows(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are this one, told to be strict: 18 fails over odd tags unless it is told what to do with them."""
    real: Any = av.open
    asked: list[set[str]] = []

    def strict(target: Any, mode: str, **how: Any) -> Any:
        asked.append(set(how))
        return real(target, mode, **{name: value for name, value in how.items() if name not in GONE_IN_19})

    monkeypatch.setattr(av, "open", strict)
    monkeypatch.setattr(av, "__version__", release)
    path = make(tmp_path / "a.mkv", Clip(3))
    asked.clear()
    with open_source(path) as source:
        assert len(list(source)) == 3
    expected = {"metadata_errors"} if release.startswith("18") else set()
    assert asked and all(names & GONE_IN_19 == expected for names in asked)


def test_both_versions_of_pyav_give_rationals() -> None:
    """PyAV 18 gives None for what is unset, 19 a rational of its own that is false."""
    assert pyav.fraction(None, Fraction(1, 25)) == pyav.fraction(Fraction(0), Fraction(1, 25)) == Fraction(1, 25)
    assert pyav.fraction(Fraction(30000, 1001)) == Fraction(30000, 1001)
