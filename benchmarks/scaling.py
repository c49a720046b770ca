"""What a film takes on many GPUs: costs are measured here, shortly, or assumed; the plan is the real one, carried out
by a simulation. The same simulation predicts a render here by one and by two workers, which is then measured.

    films ──parts of real renders──▶ costs ──┬──▶ simulation ──▶ prediction │ real render, 1 and 2 workers
                                             └─ assumptions ──▶ simulation ──▶ a film of two hours on 1 to 1,000 GPUs
"""
from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from streamdream.errors import UsageError
from streamdream.render.scene_scan import Scan
from streamdream.settings import RenderSettings

from . import Options, Progress, Report, conditions
from .scaling_costs import (
    FilmCosts,
    Timeline,
    costs_alone,
    costs_of_pair,
    make_job,
    measure_film,
    open_seconds,
    timed_render,
)
from .scaling_films import RATE, write_film
from .scaling_simulation import Costs, alone, film_scan, plan_of, shot_frames, simulate

FILM_SIZE, CHECK_SIZE = (1080, 1920), (384, 512)
CHECK_SECONDS, ROUNDS = 3.0, 6
ALONE_SHOTS, PAIR_SHOTS = (16,) * 6, (72, 72)
"""Films that costs are taken from; the one that is predicted has other shots."""
CHECK_SHOT_FRAMES = 40
CHECK = {"layers": "mixed0", "field_height": "120", "backend": "eager"}
"""The dream that is predicted and measured: with a larger field a render here takes minutes."""
FILM_SECONDS, SHOT_SECONDS, SHOT_DEVIATION = 7200, 4.0, 1.2
LONG_SHOT_SECONDS = 30.0
"""Of a film of long takes."""
GPUS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
NETWORK_BYTES_PER_SECOND = 1.25e9
"""Assumed: 10 Gbit/s to the driver."""
MIN_GAIN = 0.1
"""An added GPU that does less than this share of what the first one does is said not to pay."""


def run(options: Options, progress: Progress) -> Report:
    """Return rows of ``render`` "check", with what was predicted and measured here, and "film", one for each number of
    GPUs and each ``--seams``.
    """
    if not options.node_cores or not options.driver_cores:
        raise UsageError("--node-cores and --driver-cores are 1 or more")
    with tempfile.TemporaryDirectory(prefix="streamdream-bench-") as folder:
        progress("measuring renders by one and by two workers")
        checks, here = _check(Path(folder), options, progress)
        progress("measuring a film's decoding, encoding, keeping and joining")
        film = _film_costs(Path(folder), options)
    costs, assumed = _costs_on_gpus(film, here, options)
    progress("simulating")
    rows = list(_film_rows(costs, options.driver_cores))
    stated = {"dream": ", ".join(f"{name} {value}" for name, value in CHECK.items()), "film": _size(options),
              "film_frames": FILM_SECONDS * RATE, "shot_deviation_ratio": SHOT_DEVIATION,
              "node_cores": options.node_cores, "driver_cores": options.driver_cores,
              "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
              "network_gbit_per_s": NETWORK_BYTES_PER_SECOND * 8e-9, **assumed}
    return Report("scaling", conditions(**stated), [*checks, *rows])


def _size(options: Options) -> str:
    return f"{options.width or FILM_SIZE[1]}x{options.height or FILM_SIZE[0]}"


# A render here: predicted, and measured.


def _check(folder: Path, options: Options, progress: Progress) -> tuple[list[dict[str, Any]], tuple[Costs, Costs]]:
    """The rows of the check, and the costs of a worker alone and of two at once."""
    height, width = options.height or CHECK_SIZE[0], options.width or CHECK_SIZE[1]
    height, width = min(height, CHECK_SIZE[0]), min(width, CHECK_SIZE[1])
    films = {name: str(folder / f"{name}.mp4") for name in ("alone", "pair", "check")}
    write_film(films["alone"], ALONE_SHOTS, height, width)
    write_film(films["pair"], PAIR_SHOTS, height, width)

    def render(name: str, workers: int) -> Timeline:
        return timed_render(make_job(films[name], str(folder / "dream.mp4"), **CHECK), workers)

    frame = costs_alone(render("alone", 1), ALONE_SHOTS).frame  # loads what is loaded once
    seconds = options.seconds or CHECK_SECONDS
    opened = open_seconds(make_job(films["pair"], str(folder / "dream.mp4"), **CHECK), PAIR_SHOTS[0])
    rounds: list[tuple[Costs, float, Costs, float]] = []
    shots: list[int] = []
    for number in range(ROUNDS if seconds >= CHECK_SECONDS else 1):
        one = costs_alone(render("alone", 1), ALONE_SHOTS)
        if not shots:
            shots = shot_frames(max(int(seconds / min(frame, one.frame)), 60), CHECK_SHOT_FRAMES, SHOT_DEVIATION, 1)
            write_film(films["check"], shots, height, width)
        progress(f"round {number + 1}: {sum(shots)} frames by one and by two workers")
        seconds_of_one = render("check", 1).seconds  # at once: the speed of a machine changes within minutes
        two = costs_of_pair(render("pair", 2), sum(PAIR_SHOTS), one, opened)
        rounds.append((one, seconds_of_one, two, render("check", 2).seconds))
    chunk_frames = RenderSettings().chunk_frames
    plan = plan_of(film_scan(shots, chunk_frames), chunk_frames, 2, "exact")
    by_one = [(alone(plan, one), measured, one) for one, measured, _, _ in rounds]
    by_two = [(simulate(plan, 2, two, 1).seconds, measured, two) for _, _, two, measured in rounds]
    return ([_check_row(1, shots, by_one), _check_row(2, shots, by_two)],
            (min(by_one, key=itemgetter(0))[2], min(by_two, key=itemgetter(0))[2]))


def _check_row(workers: int, shots: Sequence[int], rounds: Sequence[tuple[float, float, Costs]]) -> dict[str, Any]:
    """``rounds`` are what was predicted and measured, each at about the same time. The least of each counts: other work
    on the machine only adds to it.
    """
    predicted, measured = min(entry[0] for entry in rounds), min(entry[1] for entry in rounds)
    return {"render": "check", "workers": workers, "frames": sum(shots), "shots": len(shots),
            "predicted_s": round(predicted, 2), "measured_s": round(measured, 2),
            "error_ratio": predicted / measured - 1,
            "measured_each_s": ", ".join(f"{entry[1]:.2f}" for entry in rounds),
            "predicted_each_s": ", ".join(f"{entry[0]:.2f}" for entry in rounds)}


# A film on many GPUs.


def _film_costs(folder: Path, options: Options) -> FilmCosts:
    height, width = options.height or FILM_SIZE[0], options.width or FILM_SIZE[1]
    film, dream = str(folder / "film.mp4"), str(folder / "film-dream.mp4")
    write_film(film, (48, 48), height, width)
    timed_render(make_job(film, dream, duration="2", **CHECK), 1)
    return measure_film(make_job(film, str(folder / "chunks.mp4"), **CHECK), dream)


def _costs_on_gpus(film: FilmCosts, here: tuple[Costs, Costs], options: Options) -> tuple[Costs, dict[str, Any]]:
    """Costs of a film whose frames take ``--frame-ms`` on a GPU, with all else as it is here; and what they are."""
    on_gpu = options.frame_ms / 1000 or here[0].frame
    beside = (film.decode_core + film.encode_core) / options.node_cores
    frame = max(on_gpu, beside)
    chunk_frames = SHOT_SECONDS * RATE
    transfer = chunk_frames * (film.frame_bytes + film.dream_bytes) / NETWORK_BYTES_PER_SECOND
    costs = Costs(load=here[1].load, frame=frame, cut=here[0].cut / here[0].frame * frame, start=here[1].start,
                  open=film.open + transfer, chunk=film.open + transfer, scan_frame=film.scan_frame,
                  scan_core_frame=film.scan_core, scan_start=film.open, keep=film.keep + transfer,
                  keep_planned=film.keep_planned, join_frame=film.join_frame)
    stated = {"frame_ms": 1000 * on_gpu, "decode_and_encode_ms": 1000 * beside, "scan_ms": 1000 * film.scan_frame,
              "scan_core_ms": 1000 * film.scan_core, "worker_start_s": costs.start, "open_s": film.open,
              "cut_frames": costs.cut / frame, "keep_ms": 1000 * costs.keep,
              "keep_per_planned_chunk_us": 1e6 * film.keep_planned, "join_ms_per_frame": 1000 * film.join_frame,
              "bytes_per_frame": film.frame_bytes, "dream_bytes_per_frame": film.dream_bytes}
    return costs, stated


def _film_rows(costs: Costs, driver_cores: int) -> Iterator[dict[str, Any]]:
    for shot_seconds in (SHOT_SECONDS, LONG_SHOT_SECONDS):
        shots = shot_frames(FILM_SECONDS * RATE, shot_seconds * RATE, SHOT_DEVIATION, 0)
        scan = film_scan(shots, RenderSettings().chunk_frames)
        for seams in ("exact", "warm-up"):
            for row in _rows_of(scan, seams, costs, driver_cores):
                if seams == "exact" or row["seams"]:  # without a seam it is as with exact
                    yield {"render": "film", "mean_shot_s": shot_seconds, "shots": len(shots), "split": seams, **row}


def _rows_of(scan: Scan, seams: str, costs: Costs, driver_cores: int) -> Iterator[dict[str, Any]]:
    chunk_frames = RenderSettings().chunk_frames
    base = alone(plan_of(scan, chunk_frames, 1, "exact"), replace(costs, load=costs.load + costs.start))
    yield {"gpus": 1, "minutes": base / 60, "render_s": base, "seams": 0, "speed_up": 1.0, "efficiency_ratio": 1.0,
           "limit": "frames"}
    gpus_before, speed_up_before = 1, 1.0
    for gpus in GPUS:
        found = simulate(plan_of(scan, chunk_frames, gpus, seams), gpus, costs, driver_cores)
        speed_up = base / found.seconds
        gain = (speed_up - speed_up_before) / (gpus - gpus_before)
        gpus_before, speed_up_before = gpus, speed_up
        yield {"gpus": gpus, "minutes": found.seconds / 60, "scan_s": found.scan_seconds,
               "render_s": found.render_seconds, "join_s": found.join_seconds, "seams": found.seams,
               "speed_up": speed_up, "efficiency_ratio": speed_up / gpus, "gain_ratio": gain, "pays": gain >= MIN_GAIN,
               "idle_ratio": found.idle_ratio, "warm_up_ratio": found.warm_up_ratio, "limit": found.limit}
