"""Who renders the missing chunks of a plan: processes here (workers.py), or a Ray cluster (ray_cluster.py)."""
from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from streamdream.render.plan import Chunk
    from streamdream.render.work_folder import WorkFolder


class Executor(Protocol):
    """Renders chunks somewhere."""

    @property
    def parallel(self) -> int:
        """How many chunks it renders at once."""

    def threads(self, usable: int) -> int:
        """Threads of each chunk on a processor, of those that this process would use."""

    def render(self, folder: WorkFolder, on_frame: Callable[[int], None]) -> Generator[tuple[Chunk, list[str]]]:
        """Yield each missing chunk of ``folder.plan`` when its files lie in the folder, with warnings about its source.
        The caller takes it into the plan before it asks for the next one.

        ``on_frame`` gets the number of frames that are there, often also when that has not changed. Raises
        StreamdreamError.
        """


def render_chunks(executor: Executor, folder: WorkFolder, on_frame: Callable[[int], None]) -> None:
    """Render all that is missing. Raises as ``Executor.render``; then the chunks that are whole stay."""
    with closing(executor.render(folder, on_frame)) as chunks:
        for done, warnings in chunks:
            assert folder.plan is not None
            folder.add_chunk(done, folder.plan.next_chunk(done), warnings)
