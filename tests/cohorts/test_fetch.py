"""Fetching: what is told before, whole series or none, and the same command again.

The index is idc-index's own; the files come from a server on 127.0.0.1 by way of the real s5cmd.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bucket import Bucket, serve

from xr2ct.cohorts import fetch
from xr2ct.cohorts.catalogue import OWN
from xr2ct.errors import UserError, WorkFailed

idc = pytest.importorskip("idc_index.index")

PATIENTS = ("LCTSC-Test-S1-101", "LCTSC-Test-S1-102")


@pytest.fixture
def small(monkeypatch):
    """A selection of two patients whose series are three small files each."""
    client = fetch._client()
    index = client.index[client.index.collection_id == "lctsc"].copy()
    rows = index.PatientID.isin(PATIENTS) & (index.Modality == "CT")
    index.loc[rows, "instanceCount"] = 3
    index.loc[rows, "series_size_MB"] = 0.003
    monkeypatch.setattr(client, "index", index)
    return fetch.select("lctsc", patients=PATIENTS)


@pytest.fixture
def bucket(small, monkeypatch):
    index = fetch._client().index.set_index("SeriesInstanceUID")
    objects = {}
    for series in small.series:
        row = index.loc[series.uid]
        for number in range(3):
            key = f"{row.aws_bucket}/{row.crdc_series_uuid}/{number}.dcm"
            objects[key] = f"{series.uid} {number}".encode().ljust(1000, b".")
    with serve(Bucket(objects)) as running:
        monkeypatch.setattr(idc, "aws_endpoint_url", running.url)
        yield running


def files(folder: Path) -> list[Path]:
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != ".fetch.lock")


class TestSelect:
    def test_size_licence_and_citation_are_told(self):
        told = str(fetch.select("nsclc-radiomics"))
        for part in ("27.0 GB", "422 CT", "CC BY-NC 3.0", "no commercial use", "Aerts", "10.7937/K9/TCIA"):
            assert part in told
        assert "commercial" not in str(fetch.select("lctsc"))

    def test_analysis_results_of_others_are_left_out(self):
        assert {s.modality for s in fetch.select("lidc-idri").series} == {"CT", "CR", "DX"}
        # Of the 1,663 segmentations in the collection those of Zenodo's record are not its own.
        assert len(fetch.select("nsclc-radiomics", modalities=("SEG",)).series) == 421

    def test_radiographs_only_of_patients_with_a_ct(self):
        everything, ct = fetch.select("covid-19-ny-sbu"), fetch.select("covid-19-ny-sbu", ("CT",))
        assert everything.patients == ct.patients
        assert everything.size > ct.size

    def test_mistakes_tell_the_nearest(self, tmp_path, monkeypatch):
        with pytest.raises(UserError, match="did you mean 'lctsc'"):
            fetch.select("lctcs")
        with pytest.raises(UserError, match="LCTSC-Test-S1-101"):
            fetch.select("lctsc", patients=["LCTSC-Test-S1-1O1"])
        with pytest.raises(UserError, match="RTSTRUCT"):
            fetch.select("lctsc", modalities=["RTSTRUKT"])
        (tmp_path / "own.yaml").write_text("ward: {}\n")
        monkeypatch.setenv(OWN, str(tmp_path / "own.yaml"))
        with pytest.raises(UserError, match="ward: not at the Imaging Data Commons"):
            fetch.select("ward")


class TestDownload:
    def test_series_come_to_their_patients(self, small, bucket, tmp_path):
        assert fetch.download(small, tmp_path) == 2
        assert len(files(tmp_path)) == 6
        for series in small.series:
            came = [path.read_bytes() for path in sorted((tmp_path / series.folder).iterdir())]
            assert [text.rstrip(b".").decode() for text in came] == [f"{series.uid} {n}" for n in range(3)]

    def test_what_is_there_is_not_fetched_again(self, small, bucket, tmp_path):
        fetch.download(small, tmp_path)
        bucket.gets.clear()
        assert fetch.download(small, tmp_path) == 0
        shutil.rmtree(tmp_path / small.series[0].folder)
        assert fetch.download(small, tmp_path) == 1
        assert len(bucket.gets) == 3
        assert len(files(tmp_path)) == 6

    def test_what_a_killed_fetch_left_does_not_count(self, small, bucket, tmp_path):
        half = tmp_path / fetch.STAGING / "old" / small.series[0].folder
        half.mkdir(parents=True)
        (half / "0.dcm").write_bytes(b"half")
        assert fetch.download(small, tmp_path) == 2
        assert len(files(tmp_path)) == 6

    def test_a_series_that_is_not_whole_is_not_there(self, small, bucket, tmp_path):
        broken = next(key for key in bucket.objects if key.endswith("/1.dcm"))
        bucket.denied.add(broken)
        with pytest.raises(WorkFailed, match=r"1 of 2 series did not come whole.*S1-101.*403"):
            fetch.download(small, tmp_path)
        assert len(files(tmp_path)) == 3
        bucket.denied.clear()
        assert fetch.download(small, tmp_path) == 1
        assert len(files(tmp_path)) == 6

    def test_a_missing_file_is_noticed(self, small, bucket, tmp_path):
        del bucket.objects[next(iter(bucket.objects))]
        with pytest.raises(WorkFailed, match="2 files of 3"):
            fetch.download(small, tmp_path)

    def test_too_small_a_disk_is_told_first(self, small, bucket, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5000))
        with pytest.raises(WorkFailed, match=r"6\.0 kB are to come and 5\.0 kB are free"):
            fetch.download(small, tmp_path / "new")
        assert not bucket.gets

    def test_without_a_network_one_line_names_the_doi(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr(idc, "aws_endpoint_url", "http://127.0.0.1:9")
        with pytest.raises(WorkFailed) as error:
            fetch.download(small, tmp_path)
        assert str(error.value).count("\n") == 0
        assert "https://doi.org/10.7937/K9/TCIA.2017.3R3FVZ08" in str(error.value)
        assert not files(tmp_path)

    def test_a_file_in_the_way_is_told(self, small, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="expected a folder"):
            fetch.download(small, tmp_path / "file")
