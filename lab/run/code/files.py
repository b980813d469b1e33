"""Which files are code or config that a run could have used, and which are never copied because they look secret."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePath

LARGEST_FILE = 5 * 2**20  # bytes; a larger file that is not committed is data, not code
MOST_BYTES = 20 * 2**20  # of all files that are not committed together
SAMPLE = 50  # files whose modes say what is usual in a checkout
SOURCE = frozenset(
    (".py", ".pyi", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".cu", ".cuh", ".rs", ".f",
     ".f90", ".jl", ".lua")
)  # what is compiled or imported  # fmt: skip
CONFIG = frozenset(
    (".yaml", ".yml", ".toml", ".cfg", ".ini", ".json", ".xml", ".urdf", ".mjcf", ".sdf", ".sh", ".html", ".j2",
     ".jinja", ".lock")
)  # what configures it, models of simulators and templates included  # fmt: skip
NAMED = frozenset({".gitignore", ".gitattributes", ".gitmodules", "Makefile", "Dockerfile", "py.typed"})
SECRET_NAMES = (
    ".env", ".env.*", "*.env", ".envrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk",
    "*.asc", "*.gpg", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.ovpn", ".netrc", "_netrc", ".npmrc",
    ".pypirc", ".pgpass", ".my.cnf", ".git-credentials", ".htpasswd", "htpasswd", "*kubeconfig*", ".s3cfg", ".boto",
    ".dockercfg", ".*_history",
)  # fmt: skip
SECRET_FOLDERS = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".gcloud", ".password-store"})
SECRET_WORDS = re.compile(
    r"secret|credential|passw(or)?d|token(?!iz)|(api|private)_?key|service_?account", re.IGNORECASE
)
# What source code is called counts only as a whole word: tokenizer.py is code.
SECRET_SOURCE = re.compile(r"(^|[._-])(secrets?|credentials?|passwords?|passwd|api_?keys?)([._-]|$)", re.IGNORECASE)
# How keys and tokens of known forms begin, and what follows then.
KEYS = {
    b"-----BEGIN ": rb"[A-Z ]*PRIVATE KEY-----",
    **dict.fromkeys((b"AKIA", b"ASIA"), rb"[0-9A-Z]{16}\b"),
    **dict.fromkeys((b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"hf_"), rb"[0-9A-Za-z]{30}"),
    **dict.fromkeys((b"github_pat_", b"glpat-", b"sk-", b"pypi-"), rb"[\w-]{20}"),
    **dict.fromkeys((b"xoxa-", b"xoxb-", b"xoxe-", b"xoxp-", b"xoxr-", b"xoxs-"), rb"[\w-]{10}"),
    b"AIza": rb"[\w-]{35}\b",
}
KEY_FORMS = {start: re.compile(rb"(?<!\w)" + re.escape(start) + rest) for start, rest in KEYS.items()}
ASSIGNED = re.compile(
    rb"(?i)(passw(or)?d|secret|api_?key|token|credentials?)[\"']?[ \t]*[:=][ \t]*[\"']?[^\s\"'${<#]{8,}"
)  # in config: a key with a value that could be the secret itself

LOOKS_SECRET = "its name looks like that of a secret"  # noqa: S105 - a reason, no password
HOLDS_SECRET = "it holds what looks like a secret"  # noqa: S105
PRIVATE = "others may not read it, as they may the files beside it"
NO_CODE = "neither code nor config"
TOO_LARGE = "too large"


def reason_to_omit(root: Path, name: str, tracked: bool, usual: int, wanted: bool = False) -> str | None:
    """Say why a file that is not committed as it is must not be copied; null if it may be.

    Args:
        root: the checkout.
        name: the file's path in it.
        tracked: whether git tracks the file.
        usual: bits of the mode that let others read the files of the checkout.
        wanted: whether it is known to be code, as a module that was imported.
    """
    path = root / name
    source = PurePath(name).suffix in SOURCE
    if has_secret_name(name, known=tracked and source):
        return LOOKS_SECRET
    try:
        status = path.lstat()
    except OSError:
        return None  # deleted; what it held is judged in the patch
    if stat.S_ISLNK(status.st_mode):
        return None
    if usual & ~status.st_mode and not (tracked and source):
        return PRIVATE
    if not (tracked or wanted or is_code(path)):
        return NO_CODE
    if status.st_size > LARGEST_FILE:
        return TOO_LARGE
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if holds_secret(content) or (not source and ASSIGNED.search(content)):
        return HOLDS_SECRET
    return None


def holds_secret(content: bytes) -> bool:
    """Say whether a key or token of a known form is in the content of a file, or in a patch."""
    for start, form in KEY_FORMS.items():
        place = content.find(start)
        while place >= 0:  # far faster than to let the expression search
            if form.match(content, place):
                return True
            place = content.find(start, place + 1)
    return False


def has_secret_name(name: str, known: bool = False) -> bool:
    """Say whether a file's name looks like that of a secret; of source that git knows, only the plainest names do."""
    path = PurePath(name)
    if SECRET_FOLDERS.intersection(path.parts) or any(fnmatch(path.name.lower(), one) for one in SECRET_NAMES):
        return True
    if known:
        return False
    return bool((SECRET_SOURCE if path.suffix in SOURCE else SECRET_WORDS).search(path.name))


def is_code(path: Path) -> bool:
    """Say by its name, or its first line, whether a file is code or config."""
    if path.suffix in SOURCE or path.suffix in CONFIG or path.name in NAMED:
        return True
    if path.name.startswith("requirements") and path.suffix == ".txt":
        return True
    if path.suffix:
        return False
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def usual_mode(root: Path, tracked: Iterable[str]) -> int:
    """Return the bits that let others read what git tracks in a checkout, but for those that new files do not get."""
    modes = []
    for name, _ in zip(tracked, range(SAMPLE), strict=False):
        try:
            modes.append((root / name).lstat().st_mode & 0o044)
        except OSError:
            continue
    return Counter(modes).most_common(1)[0][0] & ~_umask() if modes else 0


def _umask() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    return 0


def within_budget(root: Path, names: Iterable[str], sizes: dict[str, int]) -> tuple[list[str], list[str]]:
    """Return the names of files that fit into the budget together, the smallest first, and those that do not."""
    fit: list[str] = []
    left: list[str] = []
    budget = MOST_BYTES
    for name in sorted(names, key=lambda name: (sizes[name], name)):
        budget -= sizes[name]
        (fit if budget >= 0 else left).append(name)
    return fit, left
