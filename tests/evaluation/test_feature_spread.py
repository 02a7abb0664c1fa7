"""The spread of a run's own features on its validation split, beside the blur that it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from xr2ct.config import dump
from xr2ct.errors import UserError
from xr2ct.evaluation.feature_spread import feature_spread
from xr2ct.models.features import Config, FeatureExtractor
from xr2ct.reporting.exhibits.feature_spread import make_feature_spread
from xr2ct.reporting.study import Study
from xr2ct.run import Run, write_atomically
from xr2ct.store import Store
from xr2ct.window import HuWindow

MakeRun = Callable[..., Run]
WIDTHS = (2, 3, 4, 5)


def trained(make_run: MakeRun, features: FeatureExtractor | None = None, **method: Any) -> Run:
    """A run of neural OT, or of another method, whose best checkpoint holds these features."""
    run = make_run({500: 0.0})
    keys = {"name": "neural-ot", "features": {"widths": list(WIDTHS)}} if features else {}
    experiment = run.experiment().model_copy(update={"method": {**keys, **method}})
    write_atomically(run.config_file, dump(experiment))
    if features:
        save_file(features.state_dict(), run.checkpoint(500) / "features.safetensors")
    run.best.symlink_to("checkpoints/step-000500")
    return run


@pytest.fixture(scope="module")
def features() -> FeatureExtractor:
    """Not those that the run's own seed would draw."""
    return FeatureExtractor(Config(widths=WIDTHS), seed=77)


def expected(features: FeatureExtractor, stores: Path) -> list[float]:
    store = Store.open(stores / "lidc-idri.zarr")
    volumes = [HuWindow().to_unit(store.volume(c, 32).astype(np.float32)) for c in store.split("val")]
    maps = features(torch.from_numpy(np.stack(volumes))[:, None])
    return [
        np.mean([np.linalg.norm(layer[i] - layer[j]) for i, j in ((0, 1), (0, 2), (1, 2))])
        for layer in (m.numpy().astype(float) for m in maps)
    ]


def test_by_layer_with_the_features_of_the_checkpoint(
    make_run: MakeRun, features: FeatureExtractor, stores: Path
) -> None:
    run = trained(make_run, features, blur=0.25)
    found = feature_spread(run)
    assert [told.dimension for told in found] == [2 * 16**3, 3 * 8**3, 4 * 4**3, 5 * 3**3]
    assert [told.spread for told in found] == pytest.approx(expected(features, stores), rel=1e-4)
    assert {(told.blur, told.cases) for told in found} == {(0.25, 3)}
    table = make_feature_spread(Study.of([run]))
    assert table is not None and [row["layer"] for row in table.rows] == [1, 2, 3, 4]
    assert table.rows[0]["blur_of_spread"] == pytest.approx(0.25 / found[0].spread)


def test_a_blur_that_follows_the_spread_is_that_of_the_training(
    make_run: MakeRun, features: FeatureExtractor
) -> None:
    run = trained(make_run, features, blur_of_spread=0.5)
    measured = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    save_file({"by_layer": measured}, run.checkpoint(500) / "spread.safetensors")
    assert [told.blur for told in feature_spread(run)] == [0.5, 1.0, 1.5, 2.0]


def test_a_method_without_features_has_none(make_run: MakeRun) -> None:
    run = trained(make_run, name="regression")
    assert feature_spread(run) == [] and make_feature_spread(Study.of([run])) is None


def test_one_case_has_no_spread(
    make_run: MakeRun, features: FeatureExtractor, store_writer: Callable[..., Store], tmp_path: Path
) -> None:
    store_writer(tmp_path, "lidc-idri", {"train": 1, "val": 1, "test": 1})
    run = trained(make_run, features)
    experiment = run.experiment()
    data = experiment.data.model_copy(update={"stores": tmp_path})
    write_atomically(run.config_file, dump(experiment.model_copy(update={"data": data})))
    with pytest.raises(UserError, match="1 validation cases; a spread needs two"):
        feature_spread(run)
