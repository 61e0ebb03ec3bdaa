"""Fetch Debian packages, signatures checked, without touching the machine's own apt or its files.

An apt of our own (sources, state and cache in `.cache/debian/apt`) downloads exactly the packages
named, and they are unpacked, not installed. They are newer than the machine's libraries may be, so
a fetched program is started through the loader of the libraries that come with it.

Only the standard library is used here: this runs before the virtual environment exists.
"""

from __future__ import annotations

import contextlib
import email
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localfleet.errors import PartsError

CACHE = Path(__file__).resolve().parent.parent / ".cache"
APT_SOURCES = Path("/etc/apt")
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
SUITE = "trixie"  # The first Debian with MicroPython.
ALIAS = "stable"  # Its other name, which may be whole where a mirror is half-way to a new state.
KNOWN_SUITES = {
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
}
LOADERS = {
    "amd64": "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "i386": "usr/lib/i386-linux-gnu/ld-linux.so.2",
}


@dataclass(frozen=True)
class Bundle:
    """A part as Debian packages it: just the packages that its program loads, found with ldd.

    Attributes:
        finish: given the unpacked folder before it gets its name; may remove and add files. The
            name must change with what it does.
    """

    name: str
    architecture: str
    packages: str
    remedy: str
    finish: Callable[[Path], None] = lambda _: None

    @property
    def folder(self) -> Path:
        """Where it is unpacked. The name changes with the list, so what exists is complete."""
        digest = hashlib.sha256(f"{SUITE} {self.architecture} {self.packages}".encode())
        return CACHE / "debian" / f"{self.name}-{digest.hexdigest()[:8]}"

    def command(self, program: str) -> list[str]:
        """Return the command prefix that runs an unpacked program.

        Raises:
            PartsError: the bundle has not been fetched.
        """
        if not self.folder.is_dir():
            raise PartsError(f"{self.name} is missing: run `make setup`, or {self.remedy}")
        loader = self.folder / LOADERS[self.architecture]
        # Without --inhibit-cache a library that the bundle lacks would be taken from the machine,
        # whose libraries are older and fail in puzzling ways.
        options = ["--inhibit-cache", "--library-path", str(loader.parent)]
        return [str(loader), *options, str(self.folder / program)]


def debian_mirror(folder: Path = APT_SOURCES) -> str | None:
    """Return the first Debian archive that the machine's apt sources name, without a last slash.

    Both forms are read: one-line (`*.list`) and deb822 (`*.sources`). Third-party archives are
    passed over: Debian's has a path ending in /debian and suites with Debian's names.
    TMF_DEBIAN_MIRROR overrides it all. None means that there is none.
    """
    if override := os.environ.get("TMF_DEBIAN_MIRROR"):
        return override.rstrip("/")
    parts = folder / "sources.list.d"
    for file in (folder / "sources.list", *sorted(parts.glob("*.list"))):
        if file.is_file() and (found := _first_debian(one_line_sources(file.read_text()))):
            return found
    for file in sorted(parts.glob("*.sources")):
        if found := _first_debian(deb822_sources(file.read_text())):
            return found
    return None


def one_line_sources(text: str) -> Iterator[tuple[str, str]]:
    """Yield (URI, suite) of each binary source in apt's one-line form."""
    for match in re.finditer(r"^\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", text, re.MULTILINE):
        yield match[1], match[2]


def deb822_sources(text: str) -> Iterator[tuple[str, str]]:
    """Yield (URI, suite) of each enabled binary source in apt's deb822 form."""
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented.strip()):
        fields = email.message_from_string(stanza)
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            for uri in fields.get("URIs", "").split():
                for suite in fields.get("Suites", "").split():
                    yield uri, suite


def _first_debian(sources: Iterable[tuple[str, str]]) -> str | None:
    for uri, suite in sources:
        archive = uri.rstrip("/")
        if archive.endswith("/debian") and suite.split("-")[0] in KNOWN_SUITES:
            return archive
    return None


@dataclass(frozen=True)
class Source:
    """A source package as its authors released it: Debian's own tarball beside it is left out."""

    package: str
    remedy: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.package}'s source"

    @property
    def folder(self) -> Path:
        """Where it is unpacked; what exists is complete."""
        return CACHE / "debian" / f"{self.package}-source-{SUITE}"


def fetch(bundles: list[Bundle], sources: Iterable[Source] = ()) -> None:
    """Fetch and unpack bundles and sources; the caller holds the lock (see alone).

    Raises:
        PartsError: Debian's archive cannot be used or reached; says why.
    """
    apt_get = _updated_apt(with_sources=bool(sources))
    for bundle in bundles:
        _announce(bundle.name)
        with unpacked_once(bundle.folder) as temporary:
            debs = temporary / "debs"
            debs.mkdir()
            wanted = [f"{name}:{bundle.architecture}" for name in bundle.packages.split()]
            _apt_run([*apt_get, "download", *wanted], debs)
            for deb in sorted(debs.glob("*.deb")):
                _apt_run(["dpkg-deb", "--extract", str(deb), str(temporary)], debs)
            shutil.rmtree(debs)
            bundle.finish(temporary)
    for source in sources:
        _announce(source.name)
        with unpacked_once(source.folder) as temporary:
            command = ["source", "--download-only", "--tar-only", source.package]
            _apt_run([*apt_get, *command], temporary)
            [tarball] = temporary.iterdir()
            options = ["--strip-components=1", "--no-same-owner"]
            _apt_run(["tar", "--extract", f"--file={tarball}", *options], temporary)
            tarball.unlink()


def _announce(name: str) -> None:
    print(f"fetching {name} from Debian {SUITE} ...", file=sys.stderr, flush=True)


def _updated_apt(*, with_sources: bool) -> list[str]:
    """Set up an apt of our own that knows what the archive has; the command prefix of its apt-get.

    Raises:
        PartsError: Debian's archive cannot be used or reached; says why.
    """
    apt_get, apt = _own_apt(SUITE, with_sources=with_sources)
    # Without --error-on, an unreachable archive is a mere warning.
    update = [*apt_get, "--error-on=any", "update"]
    try:
        _apt_run(update, apt)
    except PartsError:
        _own_apt(ALIAS, with_sources=with_sources)
        with contextlib.suppress(PartsError):  # The first failure says more.
            _apt_run(update, apt)
            if f"\nCodename: {SUITE}\n" in _release(apt):
                return apt_get
        raise
    return apt_get


def _release(apt: Path) -> str:
    """What the archive says of the suite that was asked for by its alias."""
    files = (apt / "state/lists").glob(f"*_dists_{ALIAS}_InRelease")
    return "".join(file.read_text(encoding="utf-8") for file in files)


def _own_apt(suite: str, *, with_sources: bool) -> tuple[list[str], Path]:
    """Set up an apt of our own: own sources, state and cache.

    Returns:
        The command prefix of its apt-get, and its folder.

    Raises:
        PartsError: this machine lacks what it takes.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PartsError(f"{tool} is not on this machine")
    if platform.machine() != "x86_64":
        raise PartsError(f"fetched parts run on x86_64 only, this is {platform.machine()}")
    mirror = debian_mirror()
    if mirror is None:
        raise PartsError(f"no Debian archive in {APT_SOURCES}; name one in TMF_DEBIAN_MIRROR")
    keyring = next((file for file in KEYRINGS if file.is_file()), None)
    if keyring is None:
        raise PartsError(f"no {KEYRINGS[0]}, with which signatures are checked")

    apt = CACHE / "debian" / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    options = f"signed-by={keyring} arch=amd64,i386 target=Packages"
    listed = f"deb [{options}] {mirror} {suite} main\n"
    if with_sources:
        listed += f"deb-src [signed-by={keyring} target=Sources] {mirror} {suite} main\n"
    (apt / "sources.list").write_text(listed)
    # Read after the machine's own settings, which may name a proxy; hooks and pins are not for us.
    (apt / "apt.conf").write_text(f"""\
#clear APT::Update;
#clear APT::Architectures;
APT::Architectures {{ "amd64"; "i386"; }};
APT::Sandbox::User "root";
Dir::Etc::SourceList "{apt}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{apt}/state";
Dir::State::Status "/dev/null";
Dir::Cache "{apt}/cache";
""")
    return ["apt-get", "--quiet", f"--config-file={apt}/apt.conf"], apt


def _apt_run(command: list[str], folder: Path) -> None:
    """Run a command in a folder; its first complaint becomes the error."""
    environment = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        reason = next((line for line in lines if line.startswith(("E:", "Err:"))), lines[0])
        raise PartsError(f"{command[0]} failed: {reason}")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the cache's lock, so that two calls at once do not make the same thing."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "parts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def unpacked_once(target: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `target` when all went well, and else disappears.

    The caller holds the cache's lock, so what a killed process left half-made can go first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob("unfinished-*"):
        shutil.rmtree(leftover)
    temporary = Path(tempfile.mkdtemp(prefix="unfinished-", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide it from other users of the machine.
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
