"""Many networks against one effect atlas: their curves beside chance, as one table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from grndist.evaluation.interventional.atlas import Atlas
from grndist.evaluation.interventional.curves import ALPHA, KS, MEASURES, K, curve
from grndist.evaluation.interventional.omission import OmissionConfig
from grndist.evaluation.many import Named
from grndist.evaluation.scores import rendered
from grndist.evaluation.tables import ScoreTable
from grndist.progress import track

RANDOM = "random"


@dataclass(frozen=True)
class Curves(ScoreTable):
    """Rows of `table` are network x K: network, baseline (whether it is one), and the columns of `curve`."""

    networks: Mapping[str, str]  # where each is, by its name
    atlas: str
    facts: Mapping[str, Any]  # of the atlas: which store, cells and expression

    def flat(self, network: str) -> dict[str, float]:
        """Every measure of a network at every K it reaches, e.g. "mean_wasserstein at 1000"; what a tracker keeps."""
        own = self.table[self.table["network"] == network]
        return {
            f"{measure} at {row['K']}": float(row[measure])
            for row in own.to_dict(orient="records")
            for measure in MEASURES
            if pd.notna(row[measure])
        }

    def about(self) -> dict[str, Any]:
        """Places, and the facts of the atlas."""
        return {"atlas": self.atlas, "networks": dict(self.networks), "about": dict(self.facts)}

    def render(self, width: int = 120) -> str:
        """The table as text, with the reasons for what is missing."""
        shown = self.table[["network", "K", *MEASURES, "untestable"]]
        why = self.table[self.table["reason"] != ""].drop_duplicates(["network", "reason"])
        lines = [f"{row.network}, K {row.K:,}: {row.reason}" for row in why.itertuples()]
        note = f"compare at one K, such as {K:,}; false omission rate over all testable pairs, less is better"
        return "\n".join([rendered(shown, width).rstrip("\n"), *lines, note, ""])


def curves_of(networks: Sequence[Named], atlas: Atlas, ks: Iterable[int] | None = None) -> Curves:
    """The `curve` of every network, its false omission rate over all pairs, and what random edges would have.

    Args:
        networks: with names that differ.
        atlas: of held-out cells, best.
        ks: numbers of edges; None: those of `KS` that any network reaches, or all of the longest where it has fewer.
    """
    longest = max((len(network.edges) for network in networks), default=0)
    wanted = list(ks) if ks is not None else [k for k in KS if k <= longest] or [longest]
    config = OmissionConfig(pairs=None)
    parts = [
        curve(atlas, network.edges, wanted, omission=config).assign(network=network.name, baseline=False)
        for network in track(networks, "scoring with the atlas", len(networks))
    ]
    parts.append(chance(atlas, wanted).assign(network=RANDOM, baseline=True))
    table = pd.concat(parts, ignore_index=True)
    first = ["network", "baseline", "K"]
    places = {network.name: network.place for network in networks}
    return Curves(table[[*first, *table.columns.difference(first, sort=False)]], places, atlas.place, atlas.about)


def chance(atlas: Atlas, ks: Iterable[int]) -> pd.DataFrame:
    """What edges drawn from all testable pairs have in the mean, at every K; a `curve`.

    That of the false omission rate is the share of pairs with an effect: drawn edges tell nothing of the pairs that
    are left out, whichever those are.
    """
    n, distance, effects = 0, 0.0, 0
    own = atlas.targets.get_indexer(atlas.regulators)
    for part, p, wasserstein in atlas.blocks():
        is_pair = own[:, None] != np.arange(part.start, part.stop)
        n += int(is_pair.sum())
        distance += float(wasserstein[is_pair].sum())
        effects += int((p[is_pair] < ALPHA).sum())
    shares = dict(zip(MEASURES, (distance / n, effects / n, effects / n) if n else (np.nan,) * 3, strict=True))
    rows = [{"K": k, **shares, "untestable": 0, "omitted_pairs": n, "left_out": n, "reason": ""} for k in sorted(ks)]
    return pd.DataFrame(rows)
