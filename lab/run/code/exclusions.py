"""Which uncommitted files are never copied: what looks secret, is neither code nor config, or is too large."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from itertools import accumulate, islice
from pathlib import Path, PurePath

LARGEST_FILE = 5_000_000  # bytes, where no config says another size; a larger uncommitted file is data, not code
MOST_FILES = 4  # times the size of the largest file: that of all uncommitted files of a repository together
FEW = 10  # omitted files that one line names
SAMPLE = 50  # tracked files that `usual_mode` looks at
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
# In names of source files the term must stand alone: tokenizer.py is code.
SECRET_SOURCE = re.compile(r"(^|[._-])(secrets?|credentials?|passwords?|passwd|api_?keys?)([._-]|$)", re.IGNORECASE)
# Keys and tokens of known forms: how they begin, and what follows.
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
TOO_LARGE = "too large by provenance.max_file_size"


def reason_to_omit(
    root: Path, name: str, tracked: bool, usual_mode: int, imported: bool = False, max_size: int = LARGEST_FILE
) -> str | None:
    """Return why an uncommitted file must not be copied; None if it may be.

    Args:
        root: the checkout.
        name: the file's path in it.
        tracked: whether the commit has the file, so that data is code too: it was committed on purpose.
        usual_mode: the mode bits that let others read the files of the checkout.
        imported: whether it is the file of an imported module.
        max_size: of a file, in bytes.
    """
    path = root / name
    source = PurePath(name).suffix in SOURCE
    if has_secret_name(name, known_source=tracked and source):
        return LOOKS_SECRET
    try:
        status = path.lstat()
    except OSError:
        return None  # deleted; its former content is checked in the patch
    if stat.S_ISLNK(status.st_mode):
        return None
    if usual_mode & ~status.st_mode and not (tracked and source):
        return PRIVATE
    if not (tracked or imported or is_code(path)):
        return NO_CODE
    if status.st_size > max_size:
        return TOO_LARGE
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return HOLDS_SECRET if holds_secret(content) or (not source and ASSIGNED.search(content)) else None


def holds_secret(content: bytes) -> bool:
    """Return whether the content of a file, or a patch, holds a key or token of a known form."""
    for start, form in KEY_FORMS.items():
        place = content.find(start)
        while place >= 0:  # far faster than a search by the expression
            if form.match(content, place):
                return True
            place = content.find(start, place + 1)
    return False


def has_secret_name(name: str, known_source: bool = False) -> bool:
    """Return whether a file's name looks like that of a secret; for tracked source only the plainest names do."""
    path = PurePath(name)
    if SECRET_FOLDERS.intersection(path.parts) or any(fnmatch(path.name.lower(), one) for one in SECRET_NAMES):
        return True
    if known_source:
        return False
    return bool((SECRET_SOURCE if path.suffix in SOURCE else SECRET_WORDS).search(path.name))


def is_code(path: Path) -> bool:
    """Return whether a file is code or config, by its name or its first line."""
    if path.suffix in SOURCE or path.suffix in CONFIG or path.name in NAMED:
        return True
    if path.suffix:
        return path.name.startswith("requirements") and path.suffix == ".txt"
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def usual_mode(root: Path, tracked: Iterable[str]) -> int:
    """Return the mode bits that let others read most tracked files of a checkout, without those that umask removes."""
    modes: Counter[int] = Counter()
    for name in islice(tracked, SAMPLE):
        with suppress(OSError):
            modes[(root / name).lstat().st_mode & 0o044] += 1
    return modes.most_common(1)[0][0] & ~_umask() if modes else 0


def _umask() -> int:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    match = re.search(r"^Umask:\s*([0-7]+)", text, re.MULTILINE)
    return int(match[1], 8) if match else 0


def list_omitted(left_out: Mapping[str, str]) -> str:
    """Return a line with files that were left out and why: secrets before data, and only the first of many."""
    ordered = sorted(left_out.items(), key=lambda pair: pair[1] == NO_CODE)
    names = [f"{name} ({why})" for name, why in ordered[:FEW]]
    return ", ".join([*names, f"and {len(ordered) - FEW} more"] if len(ordered) > FEW else names)


def split_by_budget(sizes: Mapping[str, int], budget: int) -> tuple[list[str], list[str]]:
    """Return the files that fit into a budget together, the smallest first, and the others.

    Args:
        sizes: in bytes, by name.
        budget: in bytes.
    """
    names = sorted(sizes, key=lambda name: (sizes[name], name))
    totals = accumulate(sizes[name] for name in names)
    count = sum(total <= budget for total in totals)
    return names[:count], names[count:]
