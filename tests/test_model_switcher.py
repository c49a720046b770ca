"""Another network is loaded during a live run. The test decides when each frame comes; no clock is involved."""
from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from support.live_runs import SETTINGS, images
from support.stepped_live import TIMEOUT_SECONDS, SteppedSource, Steps, until_in_frames

from streamdream.automation.automation import Automation
from streamdream.automation.controls import Controls
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.errors import StreamdreamError
from streamdream.live.pipeline import Live
from streamdream.live.resolution import ResolutionController
from streamdream.models import get


def test_frames_go_on_while_another_network_loads(eager: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """No frame waits for the new network, both are dreamed with during the fade, and a missing one is taken back."""
    controls = Controls(replace(SETTINGS, octaves=1), model="inception_v3")
    steps, load_began, load_may_end = Steps(), threading.Event(), threading.Event()

    def dreamer(name: str) -> Dreamer:
        return steps.record(Dreamer(get("inception_v3"), eager, 96), name)

    def build(name: str) -> Dreamer:
        if name == "missing":
            raise StreamdreamError("it is nowhere")
        load_began.set()
        assert load_may_end.wait(TIMEOUT_SECONDS)
        return dreamer(name)

    def script() -> Iterator[NDArray[np.uint8]]:
        pictures = itertools.cycle(images())
        source.step_seconds = 0.1
        yield from itertools.islice(pictures, 3)
        controls.change({"model": "other", "layers": "mixed0"})
        yield from itertools.islice(pictures, 15)  # to the middle of the fade, which lasts 3 s
        source.step_seconds = 0.001
        yield from until_in_frames(load_began.is_set, pictures)
        yield from itertools.islice(pictures, 4)
        assert set(steps.dreams) == {"inception_v3"}  # it goes on before the new one is there
        load_may_end.set()
        yield from until_in_frames(lambda: "other" in steps.dreams, pictures)
        source.step_seconds = 0.1
        yield from itertools.islice(pictures, 20)  # past the end of the fade
        controls.change({"model": "missing"})
        yield from until_in_frames(lambda: controls.request.model == "other", pictures)
        yield from itertools.islice(pictures, 3)

    source = SteppedSource(steps, script())
    live = Live(source, steps.sink, dreamer("inception_v3"), ResolutionController(96, 12, fixed=True), controls,
                automation=Automation(controls, fade=3.0), build=build)
    report = live.run()
    assert "inception_v3" in steps.dreams[steps.dreams.index("other"):]  # the fade alternates between both
    assert set(steps.dreams[-5:]) == {"other"} and report.layers == "mixed0" and report.dropped == 0
    assert "cannot switch to missing: it is nowhere" in caplog.text
