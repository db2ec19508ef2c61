"""Further embedding columns: with the windows, added later, resumed, and where files are gone."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from ingest_helpers import FINGERPRINT, VAE, leftovers, run, write_folder, write_tone

from encoders.audio import load_audio
from encoders.bundle import load_bundle
from encoders.errors import BundleError, CatalogError, EarmarkError
from encoders.features import cut_windows, log_mel
from index.catalog import Catalog
from index.columns import count_unread, iter_embeddings, missing_parts, stored_columns
from index.removal import compact_parts, find_recordings, remove_recordings
from pipelines.columns import parse_encoders
from pipelines.commands import info
from pipelines.commands.ingest import command

# A real encoder of unit vectors, and another of posterior means.
EVENT = f"fingerprint,vae,event={FINGERPRINT}"
OTHER = f"event={FINGERPRINT},shape={VAE}"


def embeddings(catalog: Path, column: str, batch_size: int = 4096) -> pa.Table:
    """All of a column, as one table."""
    return pa.Table.from_batches(list(iter_embeddings(Catalog.open(catalog), column, batch_size)))


def digests(folder: Path) -> dict[str, str]:
    """Hash of every Parquet file below a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*.parquet"))
    }


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, sounds: Path) -> Path:
    """A catalog without further columns."""
    catalog = tmp_path_factory.mktemp("catalogs") / "plain"
    run([sounds], catalog)
    return catalog


def copy(catalog: Path, to: Path) -> Path:
    shutil.copytree(catalog, to)
    return to


def test_a_new_catalog_stores_what_was_asked_for(sounds: Path, tmp_path: Path) -> None:
    summary = run([sounds], tmp_path / "c", encoders=EVENT)
    catalog = Catalog.open(tmp_path / "c")
    assert summary.columns == {"event": "fingerprint"}
    assert list(stored_columns(catalog)) == ["fingerprint", "latent", "event"]
    event = embeddings(tmp_path / "c", "event")
    assert event.num_rows == summary.windows > 0
    # The same encoder gave the fingerprints of the same windows.
    assert event["embedding"].equals(embeddings(tmp_path / "c", "fingerprint")["embedding"])


def test_an_autoencoder_of_no_use_is_told(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match="no latents will be stored: name vae="):
        run([sounds], tmp_path / "c", encoders=f"event={FINGERPRINT}")


def test_latents_can_be_left_out_and_added_later(sounds: Path, plain: Path, tmp_path: Path) -> None:
    summary = run([sounds], tmp_path / "c", encoders=f"event={FINGERPRINT}", vae=None)
    catalog = Catalog.open(tmp_path / "c")
    assert list(stored_columns(catalog)) == ["fingerprint", "event"]
    assert "latent" not in catalog.config.windows_schema.names
    with pytest.raises(CatalogError, match="no column 'vae', only fingerprint, event"):
        next(iter_embeddings(catalog, "vae"))
    before = digests(tmp_path / "c")
    added = run([sounds], tmp_path / "c", encoders=f"event={FINGERPRINT},vae={VAE}")
    assert added.n_todo == 0
    assert added.n_gaps == len(catalog.parts())
    after = digests(tmp_path / "c")
    assert {name: after[name] for name in before} == before
    order = [("recording_id", "ascending"), ("start_sample", "ascending")]
    latent, usual = (embeddings(c, "vae").sort_by(order) for c in (tmp_path / "c", plain))
    assert latent["embedding"].to_pylist() == usual["embedding"].to_pylist()
    assert latent.num_rows == summary.windows
    # What every other catalog has with its windows is not made twice.
    assert run([], copy(plain, tmp_path / "p"), encoders=f"vae={VAE}").n_gaps == 0


def test_embeddings_are_those_of_the_windows_in_their_order(plain: Path, tmp_path: Path) -> None:
    catalog = copy(plain, tmp_path / "c")
    run([], catalog, encoders=OTHER)
    shape, latent = embeddings(catalog, "shape"), embeddings(catalog, "vae")
    assert shape.equals(latent.cast(shape.schema))
    bundle = load_bundle(FINGERPRINT)
    indexed = Catalog.open(catalog).indexed_recordings().to_pylist()
    expected = [
        bundle.encode(
            cut_windows(log_mel(load_audio(r["uri"], 16_000), bundle.spec), bundle.spec)[
                : r["n_windows"]
            ]
        )
        for r in indexed
    ]
    found = np.stack(embeddings(catalog, "event", 3)["embedding"].to_numpy())
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-6)
    ids = [r["recording_id"] for r in indexed for _ in range(r["n_windows"])]
    assert embeddings(catalog, "event", 3)["recording_id"].to_pylist() == ids


def test_adding_a_column_touches_nothing_else_and_twice_is_once(
    plain: Path, tmp_path: Path
) -> None:
    catalog = copy(plain, tmp_path / "c")
    before = digests(catalog)
    first = run([], catalog, encoders=EVENT)
    after = digests(catalog)
    assert first.n_gaps == len(Catalog.open(catalog).parts())
    assert not first.unread
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"columns"}
    again = run([], catalog, encoders=EVENT)
    assert again.n_gaps == 0
    assert digests(catalog) == after
    assert leftovers(catalog) == []


def test_what_was_killed_is_resumed(plain: Path, tmp_path: Path) -> None:
    catalog = copy(plain, tmp_path / "c")
    run([], catalog, encoders=EVENT)
    whole = digests(catalog)
    lost = sorted((catalog / "columns" / "event").iterdir())[0]
    lost.unlink()
    (lost.parent / f".{lost.name}.abc.tmp").write_bytes(b"half")
    with pytest.raises(CatalogError, match=r"incomplete.*--encoders event"):
        embeddings(catalog, "event")
    summary = run([], catalog, encoders=EVENT)
    assert summary.n_gaps == 1
    assert digests(catalog) == whole
    assert leftovers(catalog) == []


def test_new_inputs_get_all_columns_of_the_catalog(plain: Path, tmp_path: Path) -> None:
    catalog = copy(plain, tmp_path / "c")
    run([], catalog, encoders=EVENT)
    new = write_tone(tmp_path / "new.wav", 2.5, 700)
    # Not asked for again; but its bundle is not a shipped one, and has to be named.
    summary = run([new], catalog, encoders=f"event={FINGERPRINT}")
    assert summary.ok == 1
    assert missing_parts(Catalog.open(catalog), "event") == []
    n_windows = Catalog.open(catalog).indexed_recordings()["n_windows"].to_pylist()
    assert embeddings(catalog, "event").num_rows == sum(n_windows)


def test_a_column_needs_its_own_encoder(plain: Path, sounds: Path, tmp_path: Path) -> None:
    catalog = copy(plain, tmp_path / "c")
    run([], catalog, encoders=f"event={FINGERPRINT}")
    with pytest.raises(CatalogError, match=r"'event'.*was made by fingerprint.*not vae"):
        run([], catalog, encoders=f"event={VAE}")
    with pytest.raises(CatalogError, match="no column 'shape', only fingerprint, latent, event"):
        embeddings(catalog, "shape")
    shutil.copytree(FINGERPRINT, tmp_path / "mine")
    other = copy(plain, tmp_path / "d")
    run([], other, encoders=f"mine={tmp_path / 'mine'}")
    meta = other / "catalog.json"
    meta.write_text(meta.read_text().replace('"name": "fingerprint"', '"name": "strange"'))
    with pytest.raises(BundleError, match="--encoders mine=BUNDLE"):
        run([sounds], other)


def test_a_file_that_is_gone_has_no_embedding_until_it_is_back(tmp_path: Path) -> None:
    sounds = write_folder(tmp_path / "sounds")
    catalog = tmp_path / "c"
    run([sounds], catalog, shard_files=8)
    gone = sounds / "a.wav"
    content = gone.read_bytes()
    gone.write_bytes(content[:-1] + b"?")
    summary = run([], catalog, encoders=EVENT)
    assert [Path(uri).name for uri in summary.unread] == ["a.wav"]
    opened = Catalog.open(catalog)
    assert sum(count_unread(opened, "event", part).sum() for part in opened.parts()) == 5
    lengths = {
        row["recording_id"]: float(np.abs(row["embedding"]).sum())
        for row in embeddings(catalog, "event").to_pylist()
    }
    assert sorted(length > 0 for length in lengths.values()) == [False, True, True]
    assert run([], catalog, encoders=EVENT).n_gaps == 0
    gone.write_bytes(content)
    summary = run([], catalog, encoders=EVENT, retry_failed=True)
    assert summary.n_gaps == 1
    assert not summary.unread
    assert embeddings(catalog, "event")["embedding"].equals(
        embeddings(catalog, "fingerprint")["embedding"]
    )


def test_a_part_that_does_not_fit_is_damage(plain: Path, tmp_path: Path) -> None:
    catalog = copy(plain, tmp_path / "c")
    run([], catalog, encoders=EVENT)
    part = sorted((catalog / "columns" / "event").iterdir())[0]
    table = pq.read_table(part)
    pq.write_table(table.slice(1), part)
    with pytest.raises(CatalogError, match="damaged: it holds too few windows"):
        embeddings(catalog, "event")
    pq.write_table(table.replace_schema_metadata({b"earmark": b"{}"}), part)
    with pytest.raises(CatalogError, match="other settings"):
        embeddings(catalog, "event")


def test_the_option(plain: Path, tmp_path: Path) -> None:
    assert parse_encoders("fingerprint, latent ,event=a/b") == {
        "fingerprint": None,
        "vae": None,
        "event": "a/b",
    }
    for wrong in ("", "event,,vae", "event=", "event,event", "vae,latent", "Event", "a/b"):
        with pytest.raises(EarmarkError):
            parse_encoders(wrong)
    catalog = copy(plain, tmp_path / "c")
    options = ["--catalog", str(catalog), "--encoder", FINGERPRINT, "--vae", VAE, "--no-index"]
    options += ["--encoders", f"event={FINGERPRINT}"]
    result = CliRunner().invoke(command, [*options, "--dry-run"])
    assert result.exit_code == 0
    assert "columns of 3 parts" in result.output
    assert not (catalog / "columns").exists()
    result = CliRunner().invoke(command, options)
    assert result.exit_code == 0
    assert "added to 3 parts" in result.output
    result = CliRunner().invoke(info.command, [str(catalog)])
    assert "Event" in result.output


def test_compacting_takes_the_columns_along(plain: Path, sounds: Path, tmp_path: Path) -> None:
    catalog_dir = copy(plain, tmp_path / "catalog")
    run([], catalog_dir, encoders=OTHER)
    catalog = Catalog.open(catalog_dir)
    before = embeddings(catalog_dir, "shape")
    gone = before["recording_id"][0].as_py()
    with catalog.writer_lock():
        remove_recordings(catalog, find_recordings(catalog, [gone]))
        assert compact_parts(catalog) >= 1
    kept = before.filter(pc.not_equal(before["recording_id"], gone))
    after = embeddings(catalog_dir, "shape")
    order = [("recording_id", "ascending"), ("start_sample", "ascending")]
    assert 0 < kept.num_rows < before.num_rows
    assert after.sort_by(order).equals(kept.sort_by(order))
    assert {p.name for p in (catalog_dir / "columns" / "shape").iterdir()} == set(catalog.parts())
