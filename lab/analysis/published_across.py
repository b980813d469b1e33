"""Published results over several environments: algorithms ranked by normalized scores, beside those of peers.

Algorithms are compared on what they share: there is a group for each set of environments, with their frames, on which
some algorithm was trained, and in it are all that have a result on each of them. Left out are environments without
reference returns, for which there is no scale, and Trials of which only the metrics are there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from lab.analysis import plotting
from lab.analysis.across import Across, Setting, make_across
from lab.analysis.plot_across import across_height, draw_across
from lab.analysis.published import Publication, Result
from lab.analysis.statistics import MIN_VALUES, Estimate, improvement_across
from lab.common.text import format_chance, format_estimate, format_number, plural

COLUMNS = ["environments", "algorithm", "n", "IQM of scores", "score of the peer", "seeds above the peer"]
EXPLANATION = (
    "A score is 0 for the return of random actions and 1 for the one that counts as solved. IQM: interquartile mean"
    " over environments and seeds, with its stratified 95 % bootstrap interval. Score of the peer: the mean of its"
    " scores on these environments, where it has a result on each. Seeds above the peer: the probability that a seed is"
    " above the peer's mean in an environment, where a tie counts as one half; peers publish no seeds, so their own"
    " spread is not in it."
)
Place = tuple[str, int]  # an environment and the frames of training


@dataclass
class Group:
    """Algorithms on the same environments, the best first.

    Attributes:
        results: of each algorithm, by its name, in the order of the environments.
    """

    across: Across
    results: dict[str, list[Result]]

    @property
    def rows(self) -> list[list[str]]:
        """A row for each algorithm, in COLUMNS."""
        environments = plural(len(self.across.normalizations), "environment")
        rows = []
        for setting in self.across.ranking:
            score, above = self._peer(setting)
            n = sorted({len(scores) for scores in setting.samples})
            seeds = str(n[0]) if len(n) == 1 else f"{n[0]} to {n[-1]}"
            row = [environments, setting.name, seeds, format_estimate(setting.estimate), format_number(score)]
            rows.append([*row, format_chance(above) if above else "-"])
        return rows

    def _peer(self, setting: Setting) -> tuple[float | None, Estimate | None]:
        """Return the mean score of the peer, and how probably a seed is above it; None without a result on each."""
        peers = [result.peer for result in self.results[setting.name]]
        if not all(peer and peer.metric == "return" for peer in peers):
            return None, None
        scores = [
            normalization.scores(np.full(MIN_VALUES, peer.value))
            for peer, normalization in zip(peers, self.across.normalizations.values(), strict=True)
            if peer
        ]
        return float(np.mean(scores)), improvement_across(setting.samples, scores)


def group_results(publication: Publication) -> list[Group]:
    """Return a group for each set of two or more environments, the largest first; of an algorithm the best variant."""
    best: dict[str, dict[Place, Result]] = {}
    for result in publication.ordered():
        if not _excluded(result):
            place = result.trial.environment, result.frames
            before = best.setdefault(result.algo, {}).get(place)
            if before is None or (before.mean["value"] or 0.0) < (result.mean["value"] or 0.0):
                best[result.algo][place] = result
    order = list(dict.fromkeys(place for results in best.values() for place in results))
    groups = []
    for shared in sorted({frozenset(each) for each in best.values()}, key=lambda each: (-len(each), sorted(each))):
        places = [place for place in order if place in shared]
        members = [[each[place] for place in places] for each in best.values() if shared <= each.keys()]
        if len({environment for environment, _ in places}) < max(len(places), 2):
            continue  # one environment alone, or one at several lengths
        settings = [
            Setting({}, {result.trial.environment: result.trial for result in member}, member[0].name)
            for member in members
        ]
        across = make_across(settings, list(settings[0].trials), "return", 1)
        groups.append(Group(across, {member[0].name: member for member in members}))
    return groups


def _excluded(result: Result) -> str:
    """Return why a result is in no group; empty if it may be in one."""
    if not result.has_sessions:
        return "no Session is kept"
    reference = result.trial.reference
    if None in (reference.get("random_return"), reference.get("solved")):
        return "no reference returns are known for its environment"
    return "" if result.mean["value"] is not None else "no Session has completed"


def list_excluded(publication: Publication) -> list[str]:
    """Return sentences on the results that are in no group, and why."""
    reasons: dict[str, list[str]] = {}
    for result in publication.ordered():
        if reason := _excluded(result):
            reasons.setdefault(reason, []).append(result.title)
    return [f"Not compared over environments, as {reason}: {', '.join(names)}." for reason, names in reasons.items()]


@plotting.style()
def plot_groups(groups: list[Group]) -> bytes:
    """Draw the ranking, performance profiles and probabilities of improvement of each group; return a PNG."""
    heights = [across_height(group.across) for group in groups]
    figure = Figure(figsize=(15, sum(heights)), layout="constrained")
    hosts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for host, group in zip(hosts, groups, strict=True):
        draw_across(host, group.across)
        host.suptitle(f"Over {', '.join(group.across.normalizations)}", fontweight="bold", fontsize="medium")
    return plotting.png(figure)
