"""``earmark train``: from a corpus to a bundle that ingests."""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingest_helpers import VAE, rows, run

from encoders import recipes, siamese, vae
from encoders.bundle import load_bundle
from encoders.degrade import shipped_rooms
from encoders.features import cut_windows, log_mel
from pipelines.cli import main
from pipelines.commands import train

ROLES = {"palace.ogg": "music", "morning-coffee.mp3": "music", "restaurant.ogg": "noise"}


@pytest.fixture(scope="module")
def corpus(demo_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demo tracks and a restaurant."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "role", "split"])
        for name, role in ROLES.items():
            splits = ["dev"] if name.endswith("mp3") else ["train"]
            splits += ["dev"] if role == "noise" else []
            writer.writerows([demo_tracks / name, role, split] for split in splits)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything as it is, but small: the default batches and networks need minutes."""
    pytest.importorskip("tensorflow", reason="needs the train extra")
    shape = {"channels": (8, 12, 16), "hidden": 24}
    monkeypatch.setattr(siamese, "SiameseConfig", functools.partial(siamese.SiameseConfig, **shape))
    monkeypatch.setattr(vae, "VaeConfig", functools.partial(vae.VaeConfig, **shape))
    few = {"n_excerpts": 3, "n_each": 2}
    monkeypatch.setattr(recipes, "PairBatches", functools.partial(recipes.PairBatches, **few))
    monkeypatch.setattr(recipes, "WindowBatches", functools.partial(recipes.WindowBatches, **few))
    monkeypatch.setattr(recipes, "N_CALIBRATION", 8)
    rooms = np.resize(shipped_rooms(), (600, shipped_rooms().shape[1]))
    monkeypatch.setattr(recipes, "simulate_rooms", lambda *args, **settings: rooms)


Earmark = Callable[..., tuple[int, str, str]]


@pytest.fixture
def earmark(capsys: pytest.CaptureFixture[str]) -> Earmark:
    """Runs the command: exit code, standard output, standard error."""

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        heard = capsys.readouterr()
        return int(ended.value.code or 0), heard.out, heard.err

    return call


@pytest.mark.parametrize(
    ("kind", "name", "dim"), [("siamese", "fingerprint", 24), ("vae", "vae", 12)]
)
@pytest.mark.usefixtures("small")
def test_a_bundle_is_trained_and_works(
    kind: str,
    name: str,
    dim: int,
    corpus: Path,
    earmark: Earmark,
    music: tuple[np.ndarray, int],
    demo_tracks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    command = ("train", kind, "--corpus", corpus, "--out", out, "--dim", dim, "--seed", 5)
    code, said, progress = earmark(*command, "--steps", 4)
    assert code == 0
    assert f"The bundle is in {out / 'bundle'}" in said
    assert "Decoding: 1 of 1" in progress
    assert "Training: 4 of 4 loss " in progress
    assert " dev_loss " in progress

    meta = json.loads((out / "bundle" / "bundle.json").read_text())
    assert meta["name"] == name
    assert meta["training"]["steps"] == 4
    assert meta["training"]["seed"] == 5
    bundles = [load_bundle(out / "bundle", precision) for precision in ("int8", "float32")]
    windows = cut_windows(log_mel(music[0][: 6 * music[1]], bundles[0].spec), bundles[0].spec)
    for bundle in bundles:
        vectors = bundle.encode(windows)
        assert vectors.shape == (len(windows), dim)
        assert np.isfinite(vectors).all()
    assert list((out / "logs").glob("events.out.tfevents.*"))

    # It is an encoder like the shipped ones.
    encoders = {"fingerprint": str(out / "bundle")} if kind == "siamese" else {}
    encoders |= {"vae": str(out / "bundle") if kind == "vae" else VAE}
    track = demo_tracks / "morning-coffee.mp3"
    summary = run([track], tmp_path / "catalog", **encoders)
    assert (summary.ok, summary.failed) == (1, 0)
    assert rows(tmp_path / "catalog")[str(track)]["n_windows"] > 10

    # Again: the checkpoint is the last one, no step is taken, and the encoder is the same.
    kept = {p: p.stat().st_mtime_ns for p in (out / "checkpoints").iterdir()}
    code, _, progress = earmark(*command, "--steps", 4)
    assert code == 0
    assert "Training:" not in progress
    assert {p: p.stat().st_mtime_ns for p in (out / "checkpoints").iterdir()} == kept
    again = load_bundle(out / "bundle", "float32").encode(windows)
    np.testing.assert_allclose(again, bundles[1].encode(windows), atol=1e-5)

    # More steps go on from there.
    taken: list[int] = []
    real = recipes.fit

    def watched(*args: Any) -> None:
        *rest, progress = args
        real(*rest, lambda step, figures: (taken.append(step), progress(step, figures)))

    monkeypatch.setattr(recipes, "fit", watched)
    assert earmark(*command, "--steps", 6)[0] == 0
    assert taken == [5, 6]


@pytest.mark.usefixtures("small")
def test_another_network_does_not_go_on_from_the_checkpoint(
    corpus: Path, earmark: Earmark, tmp_path: Path
) -> None:
    command = ("train", "siamese", "--corpus", corpus, "--out", tmp_path, "--steps", 1)
    assert earmark(*command, "--dim", 8)[0] == 0
    code, _, told = earmark(*command, "--dim", 16)
    assert code == 2
    assert told.splitlines()[-1].startswith("Error: ")
    assert load_bundle(tmp_path / "bundle").dim == 8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,role\na.ogg,music\n", "lacks the column(s) split"),
        ("path,role,split\na.ogg,song,train\n", "unknown role 'song'"),
        ("path,role,split\na.ogg,music,train\n", "no music that can be decoded in split 'train'"),
        ("path,role,split\n{palace},music,train\n", "no music that can be decoded in split 'dev'"),
    ],
)
def test_a_bad_corpus_is_one_sentence(
    text: str,
    sentence: str,
    earmark: Earmark,
    demo_tracks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recipes, "require_training", lambda: None)
    corpus = tmp_path / "corpus.csv"
    corpus.write_text(text.format(palace=demo_tracks / "palace.ogg"))
    code, said, told = earmark("train", "siamese", "--corpus", corpus, "--out", tmp_path / "run")
    assert code == 2
    assert said == ""
    error = told.splitlines()[-1]
    assert error.startswith("Error: ")
    assert sentence in error
    assert "Traceback" not in told
    assert not (tmp_path / "run" / "bundle").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("siamese", "--corpus", "absent.csv", "--out", "run"),
        ("transformer", "--corpus", ".", "--out", "run"),
        ("vae", "--corpus", ".", "--out", "run", "--steps", "0"),
        ("vae", "--corpus", ".", "--out", "run", "--dim", "1"),
        ("vae", "--corpus", "."),
    ],
)
def test_wrong_use_is_told(
    arguments: tuple[str, ...], earmark: Earmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, told = earmark("train", *arguments)
    assert code == 2
    assert "Error: " in told
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_the_extra_is_named(
    corpus: Path, earmark: Earmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow" else real(name, *rest),
    )
    code, _, told = earmark("train", "vae", "--corpus", corpus, "--out", tmp_path / "run")
    assert code == 2
    assert told == "Error: training needs tensorflow: pip install 'earmark[train]'\n"
    assert not (tmp_path / "run").exists()


def test_the_steps_of_the_shipped_bundles_are_the_default(earmark: Earmark) -> None:
    code, said, _ = earmark("train", "--help")
    assert code == 0
    for steps in train.STEPS.values():
        assert str(steps) in said
