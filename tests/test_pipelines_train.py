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

from encoders import losses, recipes, siamese, vae
from encoders.audio import load_audio
from encoders.bundle import load_bundle
from encoders.decision import SIMILARITIES
from encoders.degrade import shipped_rooms
from encoders.features import cut_windows, log_mel
from encoders.levels import MfccInput
from encoders.recipes import fingerprint, latent
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
    few = functools.partial(latent.WindowBatches, n_excerpts=3, n_each=2)
    monkeypatch.setattr(fingerprint, "N_EACH", 2)
    monkeypatch.setattr(fingerprint, "N_EXAMINED", 12)
    for module in (fingerprint, latent):
        monkeypatch.setattr(module, "WindowBatches", few)
        monkeypatch.setattr(module, "N_CALIBRATION", 8)
    monkeypatch.setattr(fingerprint, "simulate_rooms", lambda *args, **settings: shipped_rooms())


SMALL = {"siamese": ("--pairs", 6), "vae": ()}


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


@pytest.mark.usefixtures("small")
def test_an_event_bundle_is_trained_and_works(
    demo_tracks: Path, earmark: Earmark, tmp_path: Path
) -> None:
    path, out = tmp_path / "corpus.csv", tmp_path / "run"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "role", "split", "label", "source"])
        for name, label in (("palace.ogg", "a"), ("hacienda.mp3", "b"), ("musicbox.mp3", "a")):
            for split in ("train", "dev"):
                writer.writerow([demo_tracks / name, "event", split, label, name])
        writer.writerow([demo_tracks / "restaurant.ogg", "noise", "train", "", ""])
    command = ("train", "event", "--corpus", path, "--out", out, "--channels", "8,12,16")
    command += ("--hidden", 24, "--dim", 20, "--temperature", 0.2)
    code, said, progress = earmark(*command, "--steps", 4)
    assert code == 0
    assert f"--encoders event={out / 'bundle'}" in said
    assert "Training: 4 of 4 loss " in progress
    meta = json.loads((out / "bundle" / "bundle.json").read_text())
    assert (meta["name"], meta["kind"], meta["dim"]) == ("event", "siamese", 20)
    assert meta["training"]["classes"] == ["a", "b"]
    assert meta["training"]["temperature"] == 0.2
    exact, quick = (load_bundle(out / "bundle", p) for p in ("float32", "int8"))
    frames = log_mel(load_audio(demo_tracks / "palace.ogg", 16_000)[:80_000], exact.spec)
    windows = cut_windows(frames, exact.spec)
    a, b = exact.encode(windows), quick.encode(windows)
    assert a.shape == (len(windows), 20)
    assert np.einsum("nd,nd->n", a, b).mean() > 0.9
    # It goes on from the checkpoint, and another run starts from its weights.
    assert earmark(*command, "--steps", 5)[0] == 0
    again = (*command[:5], tmp_path / "again", *command[6:], "--steps", 1)
    assert earmark(*again, "--from", out)[0] == 0
    assert earmark(*again[:5], tmp_path / "third", *again[6:], "--from", out / "bundle")[0] == 0


@pytest.mark.usefixtures("small")
def test_an_event_encoder_has_a_teacher(
    demo_tracks: Path, earmark: Earmark, tmp_path: Path
) -> None:
    path, names = tmp_path / "corpus.csv", ["palace.ogg", "hacienda.mp3", "musicbox.mp3"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "role", "split", "label", "source"])
        for name in names[:2]:
            for split in ("train", "dev"):
                writer.writerow([demo_tracks / name, "event", split, "a", name])
        writer.writerow([demo_tracks / names[2], "music", "train", "", ""])
    said = np.random.default_rng(0).random((6, 10))
    files = [str(demo_tracks / name) for name in names for _ in range(2)]
    np.savez(tmp_path / "t.npz", path=files, start_s=[0.0, 2.5] * 3, vector=said)
    command = ("train", "event", "--corpus", path, "--channels", "8,12,16", "--hidden", 24)
    command += ("--dim", 20, "--steps", 3, "--out", tmp_path / "run")
    code, _, progress = earmark(*command, "--teacher", tmp_path / "t.npz")
    assert code == 0
    assert " far " in progress
    meta = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())
    assert meta["training"]["taught"] is True
    assert load_bundle(tmp_path / "run" / "bundle", "int8").dim == 20
    (tmp_path / "t.npz").write_bytes(b"nothing")
    code, _, told = earmark(*command, "--teacher", tmp_path / "t.npz")
    assert code == 2
    assert "holds no vectors of a teacher" in told


@pytest.mark.usefixtures("small")
def test_events_need_labels(corpus: Path, earmark: Earmark, tmp_path: Path) -> None:
    code, _, told = earmark("train", "event", "--corpus", corpus, "--out", tmp_path)
    assert code == 2
    assert "no two events of one label in split 'train'" in told


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
    command += SMALL[kind]
    code, said, progress = earmark(*command, "--steps", 4)
    assert code == 0
    first, *last = said.splitlines()
    assert first.startswith("The encoder: 0.")
    assert first.endswith(" M parameters")
    assert last[-1].startswith(f"The bundle is in {out / 'bundle'}; use it with: ")
    assert any(line.startswith("Waiting for the degradations: ") for line in last)
    assert "Decoding: 1 of 1" in progress
    assert "Training: 4 of 4 loss " in progress
    assert " waited " in progress
    assert " dev_loss " in progress

    meta = json.loads((out / "bundle" / "bundle.json").read_text())
    assert meta["name"] == name
    assert meta["training"]["steps"] == 4
    assert meta["training"]["seed"] == 5
    (logged,) = read_log(out)
    assert logged["kind"] == kind
    assert logged["settings"]["network"]["dim"] == dim
    assert logged["settings"]["steps"] == logged["figures"]["steps_taken"] == 4
    assert 0.0 <= logged["figures"]["waited"] <= 1.0
    assert logged["figures"]["dev_loss"] > 0.0
    assert f"{logged['cost']['parameters'] / 1e6:,.2f} M parameters" in first
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
    assert len(read_log(out)) == 2
    assert "dev_loss" not in read_log(out)[1]["figures"]
    again = load_bundle(out / "bundle", "float32").encode(windows)
    np.testing.assert_allclose(again, bundles[1].encode(windows), atol=1e-5)

    # More steps go on from there.
    taken: list[int] = []
    module = fingerprint if kind == "siamese" else latent
    real = module.fit

    def watched(*args: Any) -> None:
        *before, progress = args[:7]
        both = lambda step, figures: (taken.append(step), progress(step, figures))  # noqa: E731
        real(*before, both, *args[7:])

    monkeypatch.setattr(module, "fit", watched)
    assert earmark(*command, "--steps", 6)[0] == 0
    assert taken == [5, 6]


def read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "experiment.json").read_text().splitlines()]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.usefixtures("small")
def test_the_decision_about_pairs_is_calibrated(
    similarity: str, corpus: Path, earmark: Earmark, tmp_path: Path, music: tuple[np.ndarray, int]
) -> None:
    command = ("train", "siamese", "--corpus", corpus, "--out", tmp_path, "--steps", 3)
    code, said, _ = earmark(*command, *SMALL["siamese"], "--dim", 8, "--similarity", similarity)
    assert code == 0
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.decision is not None
    assert bundle.decision.similarity == similarity
    (run,) = read_log(tmp_path)
    assert run["settings"]["similarity"] == similarity
    assert run["figures"]["equal_error_rate"] == bundle.decision.equal_error_rate
    assert run["figures"]["top_1_among"] == 12
    assert f"Same sound or not: {bundle.decision.equal_error_rate:.1%} equal error" in said
    assert f"Among all held-back windows: {run['figures']['top_1']:.1%}" in said
    windows = cut_windows(log_mel(music[0][: 6 * music[1]], bundle.spec), bundle.spec)
    vectors = bundle.encode(windows)
    assert bundle.same(vectors, vectors).all()
    assert bundle.decision.compare(vectors, vectors) == pytest.approx(
        0.0 if similarity == "euclidean" else 1.0, abs=1e-3
    )


@pytest.mark.usefixtures("small")
def test_choices_reach_the_bundle(corpus: Path, earmark: Earmark, tmp_path: Path) -> None:
    command = ("train", "siamese", "--corpus", corpus, "--steps", 2, *SMALL["siamese"])
    choices = ("--loss", "triplet", "--margin", 0.3, "--input", "mfcc", "--channels", "4,6")
    code, _, _ = earmark(*command, *choices, "--hidden", 5, "--dim", 6, "--out", tmp_path / "one")
    assert code == 0
    bundle = load_bundle(tmp_path / "one" / "bundle")
    assert bundle.meta["network"] == {"dim": 6, "channels": [4, 6], "hidden": 5}
    assert isinstance(bundle.inputs, MfccInput)
    assert len(bundle.inputs.mean) == bundle.inputs.n_mfcc == 40
    made_with = bundle.meta["training"]
    assert {name: made_with[name] for name in ("loss", "margin", "inputs", "n_pairs")} == {
        "loss": "triplet", "margin": 0.3, "inputs": "mfcc", "n_pairs": 6,
    }  # fmt: skip
    # Another run starts from its weights, and says so.
    for origin, name in ((tmp_path / "one", "one"), (tmp_path / "one" / "bundle", "bundle")):
        start = ("--from", origin, "--out", tmp_path / f"from {name}")
        assert earmark(*command, *choices, "--hidden", 5, "--dim", 6, *start)[0] == 0
        assert read_log(tmp_path / f"from {name}")[0]["settings"]["start"] == name


def test_a_start_that_is_not_there_is_told(
    corpus: Path, earmark: Earmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "require_training", lambda: None)
    command = ("train", "siamese", "--corpus", corpus, "--out", tmp_path, "--from", "nowhere")
    code, _, told = earmark(*command)
    assert code == 2
    assert "no folder or bundle 'nowhere'" in told


@pytest.mark.usefixtures("small")
def test_mixed_precision_gives_a_bundle_like_any(
    corpus: Path, earmark: Earmark, tmp_path: Path, music: tuple[np.ndarray, int]
) -> None:
    command = ("train", "siamese", "--corpus", corpus, "--steps", 2, *SMALL["siamese"])
    assert earmark(*command, "--dim", 8, "--out", tmp_path, "--mixed-precision")[0] == 0
    bundle = load_bundle(tmp_path / "bundle", "float32")
    windows = cut_windows(log_mel(music[0][: 4 * music[1]], bundle.spec), bundle.spec)
    assert np.isfinite(bundle.encode(windows)).all()
    assert bundle.meta["training"]["mixed_precision"] is True


@pytest.mark.usefixtures("small")
def test_another_network_does_not_go_on_from_the_checkpoint(
    corpus: Path, earmark: Earmark, tmp_path: Path
) -> None:
    command = ("train", "siamese", "--corpus", corpus, "--out", tmp_path, "--steps", 1)
    command += SMALL["siamese"]
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
        ("vae", "--corpus", ".", "--out", "run", "--loss", "triplet"),
        ("vae", "--corpus", ".", "--out", "run", "--mixed-precision"),
        ("siamese", "--corpus", ".", "--out", "run", "--loss", "hinge"),
        ("siamese", "--corpus", ".", "--out", "run", "--channels", "32,x"),
        ("siamese", "--corpus", ".", "--out", "run", "--channels", "32,0"),
        ("siamese", "--corpus", ".", "--out", "run", "--channels", ""),
        ("siamese", "--corpus", ".", "--out", "run", "--pairs", "12"),
        ("siamese", "--corpus", ".", "--out", "run", "--margin", "0.1"),
        ("event", "--corpus", ".", "--out", "run", "--margin", "0.1"),
        ("siamese", "--corpus", ".", "--out", "run", "--teacher", __file__),
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


@pytest.mark.usefixtures("small")
def test_too_many_convolutions_are_told(corpus: Path, earmark: Earmark, tmp_path: Path) -> None:
    command = ("train", "vae", "--corpus", corpus, "--out", tmp_path)
    code, _, told = earmark(*command, "--channels", "2,2,2,2,2,2")
    assert code == 2
    last = told.splitlines()[-1]
    assert last == "Error: 6 convolutions: n_frames and n_bands must be multiples of 64"


def test_every_choice_can_be_named(earmark: Earmark) -> None:
    said = " ".join(earmark("train", "--help")[1].split())
    for choices in (losses.LOSSES, SIMILARITIES, fingerprint.INPUTS):
        assert f"[{'|'.join(choices)}]" in said


def test_the_steps_of_the_shipped_bundles_are_the_default(earmark: Earmark) -> None:
    code, said, _ = earmark("train", "--help")
    assert code == 0
    for steps in train.STEPS.values():
        assert str(steps) in said
