"""What environments did that changes no result, but that a user should know: collected here, told by who can."""

_pending: dict[str, None] = {}


def add(text: str) -> None:
    """Add a sentence, unless it waits to be told already."""
    _pending[text] = None


def take() -> list[str]:
    """Return the sentences that were not told yet; they count as told."""
    found = list(_pending)
    _pending.clear()
    return found
