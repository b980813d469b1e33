"""A horizon of steps in a Session's frames, and what is due after it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A horizon of steps: the frames before and after it, those planned then, and those of the whole Session.

    They differ in a Session that was extended: its earlier plan ends as if it were the whole Session.
    """

    before: int
    after: int
    planned: int
    frames: int

    @property
    def last(self) -> bool:
        """Whether the Session is done after it."""
        return self.after >= self.frames

    @property
    def ends_plan(self) -> bool:
        """Whether the Session is done after it, or was before it was extended."""
        return self.after >= self.planned

    @property
    def fraction_done(self) -> float:
        """Fraction of the planned frames that are done before it."""
        return self.before / self.planned

    def is_due(self, every: int) -> bool:
        """Whether something is due that happens every so many frames, and at the end; never if `every` is 0."""
        return every > 0 and (self.ends_plan or self.after // every > self.before // every)
