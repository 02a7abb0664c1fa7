"""Names of patients and series, and the salt that they hang on."""

from __future__ import annotations

import logging
import pickle
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xr2ct.cohorts.pseudonyms import default_salt, names_for, short_hash
from xr2ct.cohorts.refused import Refused
from xr2ct.errors import UserError


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text("hospital: {}\n")
    monkeypatch.setenv("XR2CT_COHORTS", str(tmp_path / "own.yaml"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_public_cohorts_need_no_salt() -> None:
    names = names_for("lidc-idri")
    assert (names.public, names.salt_id) == (True, "")
    assert names.patient("LIDC-IDRI-0001") == "LIDC-IDRI-0001"
    assert names.study("1.2") == names.series("1.2", "1.2") == short_hash("1.2")
    assert names.where("Doe^Jane.dcm") == "Doe^Jane.dcm"
    assert not default_salt().exists()


def test_others_are_named_by_a_salt_that_is_made_once(caplog: pytest.LogCaptureFixture) -> None:
    names = names_for("hospital")
    assert stat.S_IMODE(default_salt().stat().st_mode) == 0o600
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert default_salt().read_text().strip() not in caplog.text
    assert names_for("hospital") == names == pickle.loads(pickle.dumps(names))
    assert len(caplog.records) == 1
    assert re.fullmatch(r"case-[0-9a-f]{12}", names.patient("A"))
    assert (
        len({names.patient("A")[5:], names.study("A"), names.series("A", "A"), names.series("B", "A")}) == 4
    )
    assert names.where("Doe^Jane.dcm") == ""


def test_many_at_once_make_one_salt() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: names_for("hospital").salt_id, range(8)))
    assert len(made) == 1
    assert [p.name for p in default_salt().parent.iterdir()] == ["salt"]


def test_salts_that_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    short, loose = tmp_path / "short", tmp_path / "loose"
    short.write_text("pepper\n")
    with pytest.raises(UserError, match="a salt of 6 bytes; expected 16 or more"):
        names_for("hospital", short)
    with pytest.raises(UserError, match="cannot be read or made"):
        names_for("hospital", tmp_path)
    with pytest.raises(UserError, match="did you mean 'hospital'"):
        names_for("hospitl")
    loose.write_text("x" * 32)
    loose.chmod(0o644)
    names_for("hospital", loose)
    assert "every user of this machine may read the salt" in caplog.text


def test_a_refusal_goes_through_a_pipe() -> None:
    refused = pickle.loads(pickle.dumps(Refused("not DICOM", where="Doe.dcm")))
    assert (refused.reason, refused.where, str(refused)) == ("not DICOM", "Doe.dcm", "Doe.dcm: not DICOM")
