"""A real Slurm, up once for all tests here and down at the end; needs root and Debian's packages."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bed import SCRIPTS, Bed
from trials import TRAINING_CASES, Trials, Undisturbed, write_store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slurm looks at time limits and dead nodes by the half minute, and two cores may have other work."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def able() -> None:
    """Skips where no Slurm can be brought up, and says why."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import daemons
        from processes import Failed
    finally:
        sys.path.remove(str(SCRIPTS))
    try:
        daemons.check_machine()
    except Failed as failure:
        pytest.skip(f"no Slurm here: {failure}")


def bring_up(*options: str) -> Iterator[Bed]:
    folder = Path(tempfile.mkdtemp(prefix="xr2ct-bed-", dir="/tmp"))  # short: sockets lie below it
    bed = Bed(folder)
    try:
        bed.up(*options)
        yield bed
    finally:
        if (folder / "cluster.json").exists():
            bed.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def bed(able: None) -> Iterator[Bed]:
    """The instance that tests share: its nodes stay up."""
    yield from bring_up("--grace-s", "25")


@pytest.fixture
def broken_bed(able: None) -> Iterator[Bed]:
    """Three nodes for one test, which may break them."""
    yield from bring_up("--nodes", "3")


@pytest.fixture
def bare_bed(able: None) -> Iterator[Bed]:
    """A site without accounting."""
    yield from bring_up("--no-accounting")


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lidc-idri at 16³, noise; read only."""
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder, "lidc-idri", TRAINING_CASES)
    return folder


@pytest.fixture
def trials(bed: Bed, tmp_path: Path, stores: Path) -> Trials:
    return Trials(bed, tmp_path, stores)


@pytest.fixture(scope="session")
def undisturbed(able: None, tmp_path_factory: pytest.TempPathFactory, stores: Path) -> Iterator[Undisturbed]:
    """The tiny run on two ranks as it is when nothing happens to it; trains while the first tests go on."""
    folder = tmp_path_factory.mktemp("undisturbed")
    started = Undisturbed(folder, stores, 2, Bed(folder).environment())
    yield started
    started.kill()


@pytest.fixture(scope="session")
def without_dropout(
    able: None, tmp_path_factory: pytest.TempPathFactory, stores: Path
) -> Iterator[Undisturbed]:
    """The same without dropout: of ranks, each draws its own, and evaluation would draw anew."""
    folder = tmp_path_factory.mktemp("without-dropout")
    started = Undisturbed(folder, stores, 2, Bed(folder).environment(), mapper={"dropout": 0.0})
    yield started
    started.kill()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails must not leave its jobs to the next."""
    yield
    if "bed" in request.fixturenames:
        request.getfixturevalue("bed").run("scancel", "--user", str(os.getuid()), expect=None)
