"""Cluster profiles: found by name or path, and refused by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.profiles import PROFILES, load_profile
from xr2ct.errors import UserError


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_profile_is_valid(path: Path) -> None:
    load_profile(path.stem)


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'local'"):
        load_profile("lokal")


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("executor: local\ntask_per_node: 2\n")
    with pytest.raises(UserError, match="'task_per_node': did you mean 'tasks_per_node'"):
        load_profile(str(path))
