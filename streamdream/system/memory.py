"""Limit the memory of prepared steps (packed weights, engines, CUDA graphs): an LRU cache with a budget per device.

A resource is kept in a ``CacheEntry`` and taken from it for each use. While it is unused it may be evicted; the next
use makes it again. The maker of a resource tells its size; an estimate is documented as one.
"""
from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from streamdream.system.process_tuning import trim_heap

if TYPE_CHECKING:
    import torch

Resource = TypeVar("Resource")
AUTO_SHARE = 0.25
"""Of the device's memory, or of the control group's where that is less: what ``--memory auto`` is."""
UNKNOWN_BYTES = 8 << 30
"""Assumed memory of a machine that does not report it."""
IDLE_SECONDS = 30.0
"""Default idle time before eviction: longer than a round-robin over octaves or sessions."""
CHECK_SECONDS, TRIM_SECONDS = 1.0, 5.0
"""The minimum time between two checks, and between two returns of memory to the system."""
_suspended = threading.local()
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NO_LIMIT = 1 << 60


class Budget:
    """All entries of one device; together they hold at most ``limit_bytes``, plus the newest resource for a moment.

    A resource in use is never evicted, so a step that needs more than the limit exceeds it. ``release`` returns freed
    memory to the system.
    """

    def __init__(self, limit_bytes: float, release: Callable[[], None] = trim_heap) -> None:
        self.limit_bytes = limit_bytes
        self._release = release
        self._lock = threading.Lock()
        self._entries: OrderedDict[ref[CacheEntry[Any]], None] = OrderedDict()  # the least recently used first
        self._checked_seconds = self._released_seconds = 0.0
        self._unreleased = False

    @property
    def held_bytes(self) -> int:
        """The size of all resources."""
        return sum(entry.nbytes for entry in self.entries())

    def entries(self) -> list[CacheEntry[Any]]:
        """Entries that are alive, the least recently used first."""
        with self._lock:
            return [entry for key in self._entries if (entry := key()) is not None]

    def pin(self, entry: CacheEntry[Any], key: ref[CacheEntry[Any]]) -> None:
        with self._lock:
            entry.users += 1
            entry.used_seconds = time.monotonic()
            self._entries[key] = None
            self._entries.move_to_end(key)

    def unpin(self, entry: CacheEntry[Any], key: ref[CacheEntry[Any]]) -> None:
        now = time.monotonic()
        with self._lock:
            entry.users -= 1
            entry.used_seconds = now
            self._entries.move_to_end(key)
            due = now >= self._checked_seconds + CHECK_SECONDS
        if due:
            self.evict()

    def evict(self, all_unused: bool = False) -> None:
        """Drop resources beyond the limit, those unused for their ``idle_seconds``, or all unused ones."""
        if getattr(_suspended, "on", False):
            return
        dropped, now = [], time.monotonic()
        with self._lock:
            self._checked_seconds = now
            alive = {key: entry for key in self._entries if (entry := key()) is not None}
            self._unreleased |= len(alive) < len(self._entries)
            self._entries = OrderedDict.fromkeys(alive)
            sizes = {key: entry.nbytes for key, entry in alive.items()}
            held = sum(sizes.values())
            for key, entry in alive.items():
                idle = now - entry.used_seconds > entry.idle_seconds
                if entry.loaded and not entry.users and (held > self.limit_bytes or idle or all_unused):
                    held -= sizes[key]
                    dropped.append(entry.take())
            self._unreleased |= bool(dropped)
            release = self._unreleased and now >= self._released_seconds + TRIM_SECONDS
            if release:
                self._released_seconds, self._unreleased = now, False
        dropped.clear()  # not under the lock: freeing an engine takes a while
        if release:
            self._release()


class CacheEntry(Generic[Resource]):
    """Holds one resource. ``nbytes_of`` returns its size, which may grow; it is called often, so it must be fast.

    ``idle_seconds`` is infinite for a resource that takes long to make. An entry without references leaves the budget.
    """

    def __init__(self, budget: Budget, nbytes_of: Callable[[Resource], int], idle_seconds: float | None = None,
                 resource: Resource | None = None) -> None:
        self.budget = budget
        self.users, self.used_seconds = 0, 0.0  # the budget's
        self.idle_seconds = IDLE_SECONDS if idle_seconds is None else idle_seconds
        self._nbytes_of = nbytes_of
        self._resource: Resource | None = None
        self._making = threading.Lock()
        self._key = ref(self)
        if resource is not None:
            with self.use(lambda: resource):
                pass

    @contextmanager
    def use(self, make: Callable[[], Resource]) -> Iterator[Resource]:
        """The resource, made if it is missing; it stays until the end of the ``with``. Raises what ``make`` raises."""
        self.budget.pin(self, self._key)
        try:
            resource = self._resource
            if resource is None:
                with self._making:
                    if self._resource is None:
                        self._resource = make()
                        self.budget.evict()
                    resource = self._resource
            yield resource
        finally:
            self.budget.unpin(self, self._key)

    def take(self) -> Resource | None:
        """Remove and return the resource."""
        resource, self._resource = self._resource, None
        return resource

    @property
    def loaded(self) -> bool:
        return self._resource is not None

    @property
    def nbytes(self) -> int:
        """The size of the resource; 0 when it is missing."""
        resource = self._resource
        return 0 if resource is None else self._nbytes_of(resource)


@contextmanager
def no_eviction() -> Iterator[None]:
    """Suspend eviction in this thread: nothing else may run on the GPU while a CUDA graph is captured."""
    _suspended.on = True
    try:
        yield
    finally:
        _suspended.on = False


_budgets: dict[str, Budget] = {}
_budgets_lock = threading.Lock()


def budget_of(device: torch.device) -> Budget:
    """The budget of a device, shared by all backends on it; a quarter of its memory until ``set_limit``."""
    with _budgets_lock:
        if str(device) not in _budgets:
            release = trim_heap if device.type == "cpu" else _empty_cuda_cache if device.type == "cuda" else _nothing
            _budgets[str(device)] = Budget(auto_bytes(device), release)
        return _budgets[str(device)]


def set_limit(limit_bytes: int, device: torch.device) -> None:
    """Limit the prepared steps of a device; 0 is ``auto_bytes``."""
    budget_of(device).limit_bytes = limit_bytes or auto_bytes(device)


def evict_idle() -> None:
    """Evict idle resources on all devices. Each use does that, too; call it when there may be no use for a while."""
    with _budgets_lock:
        budgets = list(_budgets.values())
    for budget in budgets:
        budget.evict()


def held_bytes() -> int:
    """The size of all prepared steps, on all devices."""
    with _budgets_lock:
        budgets = list(_budgets.values())
    return sum(budget.held_bytes for budget in budgets)


def auto_bytes(device: torch.device) -> int:
    """``AUTO_SHARE`` of the device's memory; on a CPU, of the memory that this process may use."""
    if device.type == "cuda":
        import torch

        return int(AUTO_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(AUTO_SHARE * min(_machine_bytes(), cgroup_bytes()))


@cache
def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_BYTES


def cgroup_bytes() -> int:
    """The lowest memory limit of this process's control groups (cgroup v1 or v2); ``NO_LIMIT`` without one."""
    limits = [NO_LIMIT]
    lines = OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (CGROUPS, "memory.max") if not controllers else (CGROUPS / "memory", "memory.limit_in_bytes")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                limits += _read_limit(folder / name)
    return min(limits)


def _read_limit(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() else []  # "max" is none


def _empty_cuda_cache() -> None:
    import torch

    torch.cuda.empty_cache()


def _nothing() -> None:
    """Do nothing: the allocators of other devices have no cache to empty."""
