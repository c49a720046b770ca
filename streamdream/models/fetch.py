"""Weights on this machine: where they are stored, how they come there, and what is checked first.

    a source ────download────▶ .part ──digest──┐
    a user's file ──copy──▶ .part ─────────────┴▶ (member of an archive) ──loaded once──▶ renamed: NAME.pth, ...
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from streamdream.errors import MissingPackage, ModelError, UsageError
from streamdream.models.download import LIMITS, DownloadError, Limits, Progress, download
from streamdream.system import cache_dir

if TYPE_CHECKING:
    from streamdream.models import Model, WeightSource

SUFFIXES = (".safetensors", ".caffemodel", ".pth", ".pt", ".pb", ".h5")
ARCHIVES = (".zip", ".gz", ".tgz", ".tar")
MAX_BYTES = 1 << 30  # more than any weights have
Log = Callable[[str], None]


def weights_dir() -> Path:
    """Where weights are stored."""
    return cache_dir.cache_dir("weights")


def find(name: str) -> Path | None:
    """The file with the weights of that network, the newest if there are several."""
    paths = [path for suffix in SUFFIXES if (path := weights_dir() / f"{name}{suffix}").is_file()]
    return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)


def find_valid(model: Model, say: Log) -> Path | None:
    """As ``find``, but None, and a line of what is wrong, for a file that cannot be used."""
    path = find(model.name)
    try:
        if path:
            model.load_weights()
    except ModelError as error:
        say(str(error))
        return None
    return path


def fetch(model: Model, say: Log, progress: Progress, limits: Limits = LIMITS) -> Path:
    """Download the weights from the first source that has them; their path.

    Raises ModelError when none does, or when the folder cannot be written.
    """
    if not model.sources:
        raise UsageError(f"{model.name} is embedded: there is nothing to fetch")
    errors: list[DownloadError | MissingPackage] = []
    with _lock():
        for source in model.sources:
            size = f" ({source.size / 1e6:.0f} MB)" if source.size else ""
            digest = "" if source.digest else "; no digest of it was published, only its tensors can be checked"
            say(f"from {source.url}{size}{digest}")
            try:
                return _from_source(model, source, progress, limits)
            except (DownloadError, MissingPackage) as error:
                errors.append(error)
                say(f"that failed: {error}")
    raise ModelError(f"{model.name} could not be fetched: {_summarize(errors)}. If you have its file: "
                     f"streamdream fetch {model.name} --from FILE (the embedded inception_v3 needs none)")


def _summarize(errors: list[DownloadError | MissingPackage]) -> str:
    hosts = [getattr(error, "unreachable_host", "") for error in errors]
    if all(hosts):
        return f"no connection to {', '.join(dict.fromkeys(hosts))}"
    return "; ".join(dict.fromkeys(map(str, errors)))


def import_file(model: Model, file: Path) -> tuple[Path, bool]:
    """Check a file of the user's and store a copy. The file itself stays as it is.

    Returns the copy's place and whether it is, byte for byte, a published one. Raises ModelError or UsageError.
    """
    if not model.sources:
        raise UsageError(f"{model.name} is embedded: it takes no file")
    if file.suffix.lower() not in (*SUFFIXES, *ARCHIVES):
        raise UsageError(f"{file.name}: weights are read from {', '.join((*SUFFIXES, *ARCHIVES))}")
    part = weights_dir() / f"{model.name}.import.part"
    if any(path.exists() and file.exists() and path.samefile(file)
           for path in (part, *(weights_dir() / f"{model.name}{suffix}" for suffix in SUFFIXES))):
        raise UsageError(f"{file} is already the stored file")
    with _lock():
        try:
            shutil.copyfile(file, part)
            published = any(source.digest and not digest_mismatch(part, source.digest) for source in model.sources)
            members = tuple(source.member for source in model.sources if source.member)
            return _install(model, part, members, file.name), published
        except OSError as error:
            raise ModelError(f"{file}: {error.strerror}") from None
        except DownloadError as error:
            raise ModelError(str(error)) from None
        finally:
            part.unlink(missing_ok=True)


def _from_source(model: Model, source: WeightSource, progress: Progress, limits: Limits) -> Path:
    from streamdream.models.weights import readers

    readers.check_packages(source.suffix)
    key = hashlib.sha256((source.digest or source.url).encode()).hexdigest()[:8]
    part = weights_dir() / f"{model.name}.{key}.part"
    if not source.digest:  # nothing would notice that the rest comes from another version of the file
        part.unlink(missing_ok=True)
    resumed = part.exists()
    download(source.url, part, progress, limits)
    difference = digest_mismatch(part, source.digest)
    if difference and resumed:  # what was here before may have been bad
        part.unlink()
        download(source.url, part, progress, limits)
        difference = digest_mismatch(part, source.digest)
    try:
        if difference:
            raise DownloadError(f"what came is not the file that was published: {difference}")
        return _install(model, part, (source.member,), source.url.rpartition("/")[2])
    except DownloadError:
        part.unlink(missing_ok=True)
        raise


def _install(model: Model, part: Path, members: tuple[str, ...], name: str) -> Path:
    """Loads the whole file called ``name`` once, then renames it: nothing else ever has a final name.

    Raises DownloadError when it is not what it should be, ModelError when the folder cannot be written.
    """
    from streamdream.models import weights

    ready, suffix = part, Path(name).suffix.lower()
    try:
        if suffix in ARCHIVES:
            ready = part.with_suffix(".member")
            suffix = _extract(part, ready, members, name)
        try:
            weights.load(ready, model, suffix, name)
        except ModelError as error:
            raise DownloadError(str(error)) from None
        with ready.open("rb+") as file:
            os.fsync(file.fileno())
        final = weights_dir() / f"{model.name}{suffix}"
        ready.replace(final)
    except OSError as error:
        raise ModelError(f"{weights_dir()}: {error.strerror}") from None
    finally:
        if ready != part:
            ready.unlink(missing_ok=True)
    for other in SUFFIXES:  # one network, one file
        if other != suffix:
            (weights_dir() / f"{model.name}{other}").unlink(missing_ok=True)
    for rest in weights_dir().glob(f"{model.name}.*.part"):
        rest.unlink(missing_ok=True)
    return final


def digest_mismatch(path: Path, digest: str) -> str:
    """"" when the file has that digest (``KIND:HEX``, HEX may be only its beginning) or none is known; else how not."""
    kind, _, expected = digest.partition(":")
    if not expected:
        return ""
    state = DIGESTS[kind](path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    actual: str = state.hexdigest()
    return "" if actual.startswith(expected) else f"{kind} {actual[:12]}…, not {expected[:12]}…"


DIGESTS: dict[str, Callable[[int], Any]] = {  # the file's size in bytes -> what hashes it
    "sha256": lambda size: hashlib.sha256(),
    "sha1": lambda size: hashlib.sha1(usedforsecurity=False),
    "md5": lambda size: hashlib.md5(usedforsecurity=False),
    "git": lambda size: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False),
}


def _extract(archive: Path, target: Path, members: tuple[str, ...], name: str) -> str:
    """One member of an archive, by its file name alone (no path in it is followed), into ``target``; its suffix.

    Raises DownloadError, or OSError when ``target`` cannot be written.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(target.open("wb"))
        try:
            content, member = _open_member(archive, members, name, stack)
        except _BAD_ARCHIVE as error:
            raise DownloadError(f"{name} is damaged or truncated: {error}") from None
        copied = 0
        while True:
            try:
                chunk = content.read(1 << 20)
            except _BAD_ARCHIVE as error:
                raise DownloadError(f"{name} is damaged or truncated: {error}") from None
            if not chunk:
                return Path(member).suffix.lower()
            copied += len(chunk)
            if copied > MAX_BYTES:
                raise DownloadError(f"{name}: {member} unpacks to more than {MAX_BYTES >> 20} MB")
            file.write(chunk)


_BAD_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


def _open_member(archive: Path, members: tuple[str, ...], name: str, stack: contextlib.ExitStack
                 ) -> tuple[IO[bytes], str]:
    def is_member(path: str) -> bool:
        return Path(path).name in members or (not any(members) and Path(path).suffix.lower() in SUFFIXES)

    if zipfile.is_zipfile(archive):
        opened = stack.enter_context(zipfile.ZipFile(archive))
        for info in opened.infolist():
            if is_member(info.filename) and not info.is_dir():
                return stack.enter_context(opened.open(info)), info.filename
    else:
        tar = stack.enter_context(tarfile.open(archive))  # noqa: SIM115 - the stack closes it
        for entry in tar:
            content = tar.extractfile(entry) if is_member(entry.name) and entry.isfile() else None
            if content is not None:
                return stack.enter_context(content), entry.name
    raise DownloadError(f"{name} holds no {' or '.join(filter(None, members)) or 'weights'}")


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One process at a time writes into the folder. Raises ModelError when another does, or nobody can."""
    try:
        weights_dir().mkdir(parents=True, exist_ok=True)
        file = (weights_dir() / ".lock").open("w")
    except OSError as error:
        raise ModelError(f"{weights_dir()}: {error.strerror}; STREAMDREAM_CACHE names another folder") from None
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # Windows lets nobody rename a file that another process writes
        except OSError:
            raise ModelError(f"another streamdream is fetching into {weights_dir()}; wait for it") from None
        yield
