from __future__ import annotations

import json
from pathlib import Path

import pytest
from ingest_helpers import FINGERPRINT, VAE, run, write_tone

from index.catalog import Catalog
from index.search import FingerprintIndex
from pipelines.cli import main

OPTIONS = ["--encoder", FINGERPRINT, "--vae", VAE, "--format", "jsonl"]


def test_what_is_added_joins_the_live_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = tmp_path / "catalog"
    run([write_tone(tmp_path / "first.wav")], catalog, build_index=True)
    # A name that looks like an option comes after a lone --.
    added = write_tone(tmp_path / "-second.wav", pitch=660.0)
    with pytest.raises(SystemExit) as exited:
        main(["add", str(catalog), *OPTIONS, "--", str(added)])
    assert exited.value.code == 0
    assert json.loads(capsys.readouterr().out)["ok"] == 1
    names = {Path(uri).name for uri in FingerprintIndex.open(Catalog.open(catalog)).uris()}
    assert names == {"first.wav", "-second.wav"}


def test_a_catalog_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tone(tmp_path / "a.wav")
    with pytest.raises(SystemExit) as exited:
        main(["add", str(tmp_path / "catalgo"), str(tmp_path / "a.wav")])
    assert exited.value.code == 2
    assert "catalgo" in capsys.readouterr().err
    assert not (tmp_path / "catalgo").exists()
