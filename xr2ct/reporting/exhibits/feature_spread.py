"""The blur of optimal transport against how far apart chests are."""

from __future__ import annotations

from xr2ct.evaluation.feature_spread import feature_spread
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.study import Study
from xr2ct.reporting.table import Cell, Column, Table

_COLUMNS = (
    Column("system", "System"),
    Column("layer", "Layer", "d"),
    Column("dimension", "Features", "d"),
    Column("cases", "Cases", "d"),
    Column("spread", "Spread", ".4g"),
    Column("blur", "Blur", ".4g"),
    Column("blur_of_spread", "Blur / spread", ".4f"),
)
_CAPTION = (
    "Spread: mean distance between the features of two validation volumes, by layer of the run's own random "
    "features, the first seed of each system. Blur: of the Sinkhorn divergence, in the same units. Far below "
    "the spread each sample is matched with one other, far above it only means are."
)


@exhibit("feature-spread")
def make_feature_spread(study: Study) -> Table | None:
    """By system and layer; of systems trained by optimal transport."""
    rows: list[dict[str, Cell]] = [
        {
            "kind": "ours",
            "system": system.label,
            "layer": layer,
            "dimension": told.dimension,
            "cases": told.cases,
            "spread": told.spread,
            "blur": told.blur,
            "blur_of_spread": told.blur / told.spread,
        }
        for system in study.systems
        for layer, told in enumerate(feature_spread(system.runs[0]), 1)
    ]
    if not rows:
        return None
    return Table("feature-spread", "Blur and the spread of features", _CAPTION, _COLUMNS, rows)
