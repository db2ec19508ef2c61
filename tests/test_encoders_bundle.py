"""Bundles: exported networks answer as Keras does, whole or not at all, from any thread."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from encoders.audio import load_audio
from encoders.bundle import (
    SHIPPED,
    Bundle,
    Calibration,
    Network,
    bundle_hash,
    load_bundle,
    write_calibration,
    write_meta,
)
from encoders.errors import BundleError
from encoders.features import FeatureSpec, cut_windows, log_mel

TINY = ROOT / "tests" / "data" / "bundles"
SPEC = FeatureSpec()
KINDS = ("fingerprint", "vae")
PRECISIONS = ("int8", "float32")

each_bundle = pytest.mark.parametrize("name", KINDS)
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture(scope="module")
def windows(music: tuple[np.ndarray, int]) -> np.ndarray:
    """209 windows of one piece."""
    return np.ascontiguousarray(cut_windows(log_mel(music[0], SPEC), SPEC, hop_frames=6))


@pytest.fixture(scope="module")
def varied_windows(demo_tracks: Path) -> np.ndarray:
    """Windows of several pieces and of a restaurant."""
    names = ("palace.ogg", "musicbox.mp3", "morning-coffee.mp3", "restaurant.ogg", "hacienda.mp3")
    signals = [load_audio(demo_tracks / name, SPEC.sample_rate) for name in names]
    return np.concatenate([cut_windows(log_mel(signal, SPEC), SPEC) for signal in signals])


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a tiny bundle to where it may be damaged."""
    return lambda name: Path(shutil.copytree(TINY / name, tmp_path / name))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# Running.


@each_bundle
@each_precision
def test_vectors(name: str, precision: str, windows: np.ndarray) -> None:
    bundle = load_bundle(TINY / name, precision)
    vectors = bundle.encode(windows)
    assert vectors.shape == (len(windows), bundle.dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert bundle.spec == SPEC
    assert bundle.precision == precision
    assert len(np.unique(vectors.round(3), axis=0)) > 0.9 * len(windows)


@each_precision
def test_fingerprints_are_unit_vectors(precision: str, windows: np.ndarray) -> None:
    vectors = load_bundle(TINY / "fingerprint", precision).encode(windows)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_latents_are_the_means_alone(windows: np.ndarray) -> None:
    bundle = load_bundle(TINY / "vae")
    network = Network(bundle.folder / "int8.tflite")
    assert network.output_shape == (2 * bundle.dim,)
    posterior = network(bundle.inputs(windows))
    np.testing.assert_array_equal(bundle.encode(windows), posterior[:, : bundle.dim])


@each_bundle
@each_precision
def test_precisions_agree(name: str, precision: str, varied_windows: np.ndarray) -> None:
    vectors = load_bundle(TINY / name, precision).encode(varied_windows)
    exact = load_bundle(TINY / name, "float32").encode(varied_windows)
    least, mean = (0.9, 0.98) if precision == "int8" else (0.9999, 0.9999)
    assert cosines(vectors, exact).min() > least
    assert cosines(vectors, exact).mean() > mean


@each_bundle
@each_precision
@pytest.mark.parametrize("n", [0, 1, 7, 64, 65, 200])
def test_the_size_of_a_batch_leaves_no_trace(
    name: str, precision: str, n: int, windows: np.ndarray
) -> None:
    bundle = load_bundle(TINY / name, precision)
    together = bundle.encode(windows[:n])
    assert together.shape == (n, bundle.dim)
    for i in range(0, n, max(1, n // 10)):
        np.testing.assert_allclose(together[i], bundle.encode(windows[i : i + 1])[0], atol=1e-5)


@each_bundle
def test_loudness_does_not_matter(name: str, windows: np.ndarray) -> None:
    bundle = load_bundle(TINY / name, "float32")
    quieter = bundle.encode(windows[:16] - np.float32(12.0))
    np.testing.assert_allclose(quieter, bundle.encode(windows[:16]), atol=1e-3)


def test_silence_gives_finite_vectors() -> None:
    silence = np.full((2, SPEC.window_frames, SPEC.n_mels), -100.0, np.float32)
    for name in KINDS:
        assert np.isfinite(load_bundle(TINY / name).encode(silence)).all()


def test_the_input_is_left_alone(windows: np.ndarray) -> None:
    before = windows[:8].copy()
    load_bundle(TINY / "fingerprint").encode(windows[:8])
    np.testing.assert_array_equal(windows[:8], before)


@each_bundle
def test_eight_threads_get_what_one_gets(name: str, windows: np.ndarray) -> None:
    bundle = load_bundle(TINY / name)
    expected = bundle.encode(windows)
    start = threading.Barrier(8)

    def work(thread: int) -> bool:
        start.wait()
        for turn in range(6):
            first = 11 * thread + turn
            n = (1, 8, 64, 70)[(thread + turn) % 4]
            got = bundle.encode(windows[first : first + n])
            if not np.allclose(got, expected[first : first + n], atol=1e-5):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_the_decoder_gives_levels_by_latent(varied_windows: np.ndarray) -> None:
    bundle = load_bundle(TINY / "vae")
    decoder = bundle.decoder()
    latents = bundle.encode(varied_windows[::4])
    back = decoder(latents)
    assert back.shape == (len(latents), SPEC.window_frames, bundle.inputs.n_bands)
    assert np.isfinite(back).all()
    np.testing.assert_allclose(decoder(latents[:1])[0], back[0], atol=1e-5)
    assert back.std(axis=0).max() > 1e-3


@pytest.mark.skipif(not (SHIPPED / "vae" / "bundle.json").exists(), reason="not shipped yet")
def test_the_shipped_decoder_says_more_than_the_mean(varied_windows: np.ndarray) -> None:
    bundle = load_bundle("vae")
    levels = bundle.inputs(varied_windows)
    back = bundle.decoder()(bundle.encode(varied_windows))
    error = np.mean((levels - back) ** 2)
    assert error < 0.5 * np.mean((levels - levels.mean(axis=0)) ** 2)


@pytest.mark.parametrize("name", KINDS)
def test_shipped_bundles_load_by_name(name: str, windows: np.ndarray) -> None:
    if not (SHIPPED / name / "bundle.json").exists():
        pytest.skip("not shipped yet")
    vectors = {p: load_bundle(name, p).encode(windows) for p in PRECISIONS}
    assert load_bundle(name).name == name
    assert load_bundle(name).dim == {"fingerprint": 128, "vae": 64}[name]
    assert cosines(vectors["int8"], vectors["float32"]).mean() > 0.98
    assert (SHIPPED / name / "README.md").exists()


def test_a_fingerprint_has_no_decoder() -> None:
    with pytest.raises(BundleError, match="fingerprint is a siamese: it has no decoder"):
        load_bundle(TINY / "fingerprint").decoder()


# Refusing.


def test_windows_of_another_shape_are_refused(windows: np.ndarray) -> None:
    bundle = load_bundle(TINY / "fingerprint")
    with pytest.raises(BundleError, match=r"trained on windows of \(32, 128\), got \(32, 64\)"):
        bundle.encode(windows[:, :, :64])


def test_another_spec_is_refused() -> None:
    bundle = load_bundle(TINY / "fingerprint")
    bundle.check_spec(FeatureSpec())
    with pytest.raises(BundleError, match="encoder fingerprint needs other features than these"):
        bundle.check_spec(dataclasses.replace(SPEC, fmin=20.0))


@pytest.mark.parametrize("file", ["int8.tflite", "float32.tflite", "decoder.tflite"])
def test_a_damaged_file_is_refused(file: str, copy: Callable[[str], Path]) -> None:
    folder = copy("vae")
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{file} is damaged: its hash is not the one recorded"):
        load_bundle(folder)


def test_a_missing_file_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("fingerprint")
    (folder / "int8.tflite").unlink()
    with pytest.raises(BundleError, match=r"cannot read .*int8\.tflite: No such file"):
        load_bundle(folder)


def test_a_network_without_a_recorded_hash_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("fingerprint")
    meta = json.loads((folder / "bundle.json").read_text())
    edit(folder, files={"float32.tflite": meta["files"]["float32.tflite"]})
    load_bundle(folder, "float32")
    with pytest.raises(BundleError, match=r"int8"):
        load_bundle(folder, "int8")


def test_a_precision_that_is_not_there_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("fingerprint")
    (folder / "int8.tflite").unlink()
    write_meta(folder, json.loads((folder / "bundle.json").read_text()))
    load_bundle(folder, "float32")
    with pytest.raises(BundleError, match=r"int8"):
        load_bundle(folder, "int8")


def test_no_bundle_is_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent", Path(__file__)):
        with pytest.raises(BundleError, match=r"no encoder bundle at .*; shipped with earmark: "):
            load_bundle(place)


@pytest.mark.parametrize("content", ["", "{", "\x00\x01"])
def test_broken_json_is_told(content: str, copy: Callable[[str], Path]) -> None:
    folder = copy("vae")
    (folder / "bundle.json").write_text(content)
    with pytest.raises(BundleError, match=r"bundle\.json is not valid JSON"):
        load_bundle(folder)


def test_json_of_another_kind_is_told(copy: Callable[[str], Path]) -> None:
    folder = copy("vae")
    (folder / "bundle.json").write_text("[1, 2]")
    with pytest.raises(BundleError):
        load_bundle(folder)


@pytest.mark.parametrize("missing", ["name", "kind", "dim", "spec", "inputs", "files"])
def test_a_missing_entry_is_told(missing: str, copy: Callable[[str], Path]) -> None:
    folder = copy("vae")
    meta = json.loads((folder / "bundle.json").read_text())
    del meta[missing]
    (folder / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(BundleError, match=missing):
        load_bundle(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(version: object, copy: Callable[[str], Path]) -> None:
    folder = copy("vae")
    edit(folder, format_version=version)
    with pytest.raises(BundleError, match=rf"bundle format {version}, this version of earmark"):
        load_bundle(folder)


@pytest.mark.parametrize("precision", ["float16", "INT8", ""])
def test_an_unknown_precision_is_refused(precision: str) -> None:
    with pytest.raises(BundleError, match=f"unknown precision '{precision}': int8 or float32"):
        load_bundle(TINY / "vae", precision)


# Identity.


def test_the_hash_stays_when_the_score_is_fitted_again(
    copy: Callable[[str], Path], windows: np.ndarray
) -> None:
    folder = copy("fingerprint")
    before = Bundle(folder)
    fitted = Calibration(intercept=-3.0, weights={"field": 7.0}, threshold=0.25)
    write_calibration(folder, fitted)
    after = Bundle(folder)
    assert after.calibration == fitted != before.calibration
    assert after.sha256 == before.sha256 == load_bundle(TINY / "fingerprint", "float32").sha256
    np.testing.assert_array_equal(after.encode(windows[:8]), before.encode(windows[:8]))


def test_the_hash_changes_with_a_network(copy: Callable[[str], Path]) -> None:
    folder = copy("fingerprint")
    before = Bundle(folder)
    shutil.copy(folder / "float32.tflite", folder / "int8.tflite")
    write_meta(folder, before.meta)
    assert Bundle(folder).sha256 != before.sha256


def test_the_hash_is_of_what_shapes_the_vectors() -> None:
    meta = load_bundle(TINY / "vae").meta
    for harmless in ({"name": "other"}, {"training": {}}, {"calibration": {}}, {"decision": {}}):
        assert bundle_hash({**meta, **harmless}) == bundle_hash(meta)
    different = {
        bundle_hash({**meta, **change})
        for change in (
            {},
            {"kind": "siamese"},
            {"dim": 4},
            {"spec": {**meta["spec"], "fmin": 0.0}},
            {"inputs": {**meta["inputs"], "range_db": 60.0}},
            {"inputs": {**meta["inputs"], "kind": "mfcc"}},
        )
    }
    assert len(different) == 6


def test_scores_rise_with_the_evidence() -> None:
    nothing = {"field": 0.0, "focus": 0.0, "length": 0.0, "share": 0.0}
    score = Calibration().score
    for name in nothing:
        scores = [score({**nothing, name: x}) for x in (-0.5, 0.0, 0.1, 0.3)]
        assert scores == sorted(scores)
        assert 0.0 <= scores[0] < scores[-1] <= 1.0
    # The logistic function of the weighted sum.
    fitted = Calibration(-1.0, {"field": 2.0, "focus": 3.0})
    evidence = -1.0 + 2.0 * 0.4 + 3.0 * 0.1
    features = {"field": 0.4, "focus": 0.1, "length": 7.0}
    assert fitted.score(features) == pytest.approx(1 / (1 + np.exp(-evidence)))
    assert Calibration(-1e6, {}).score({}) >= 0.0  # No overflow.


def test_loading_needs_neither_tensorflow_nor_pickle() -> None:
    program = """
import pickle, sys

def refuse(*args, **settings):
    raise AssertionError("unpickling")

pickle.load = pickle.loads = pickle.Unpickler = refuse
import numpy as np
from encoders.bundle import load_bundle

for name in sys.argv[1:]:
    bundle = load_bundle(name)
    shape = (3, bundle.spec.window_frames, bundle.spec.n_mels)
    print(bundle.encode(np.random.default_rng(0).normal(-40, 9, shape).astype("float32")).shape)
    if bundle.kind == "vae":
        print(bundle.decoder()(np.zeros((2, bundle.dim), np.float32)).shape)
print(sorted({"tensorflow", "keras", "jax", "torch"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *(str(TINY / name) for name in KINDS)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["(3, 32)", "(3, 8)", "(2, 32, 128)", "[]"]
