from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dedup_helpers import pair
from PIL import Image

from encoders.errors import AudioError
from pipelines.dedup.pictures import GAP, HEIGHT, WIDTH, View, draw_pair


def decode(picture: str) -> tuple[np.ndarray, np.ndarray]:
    """Both spectrograms [shape=(HEIGHT, WIDTH, 4)] of a picture."""
    kind, _, data = picture.partition("base64,")
    assert kind == "data:image/webp;"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    assert pixels.shape == (2 * HEIGHT + GAP, WIDTH, 4)
    return pixels[:HEIGHT], pixels[HEIGHT + GAP :]


def alike(a: np.ndarray, b: np.ndarray, columns: slice) -> float:
    """Correlation of what is shown."""
    mine, theirs = (x[:, columns, :3].astype(float).ravel() for x in (a, b))
    return float(np.corrcoef(mine, theirs)[0, 1])


def test_both_files_are_drawn_on_one_time_axis(
    tmp_path: Path, music: tuple[np.ndarray, int]
) -> None:
    signal, rate = music
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(a, signal[: 20 * rate], rate)
    soundfile.write(b, 0.2 * signal[5 * rate : 11 * rate], rate)
    found = pair("a", "b", "excerpt", a_start_s=5.0, a_end_s=11.0, b_start_s=0.0, b_end_s=6.0)
    view = View.of(found, 20.0, 6.0)
    assert (view.start_s, view.seconds) == (pytest.approx(4.1), pytest.approx(7.8))
    above, below = decode(draw_pair(a, b, found, view))
    first, last = (round(share * WIDTH) for share in (view.shared_from, view.shared_to))
    inside = slice(first + 5, last - 5)
    assert alike(above, below, inside) > 0.9
    assert (above[..., 3] > 0).all(), "a goes on before and after"
    assert (below[:, : first - 3, 3] == 0).all(), "b does not"
    assert (below[:, last + 3 :, 3] == 0).all()
    assert (below[:, inside, 3] > 0).all()

    wrong = dataclasses.replace(found, b_start_s=1.0)
    assert alike(*decode(draw_pair(a, b, wrong, view)), slice(first + 120, last - 120)) < 0.7


def test_another_speed_is_drawn_in_step(tmp_path: Path, music: tuple[np.ndarray, int]) -> None:
    signal, rate = music
    a, b = tmp_path / "a.wav", tmp_path / "b.flac"
    soundfile.write(a, signal[: 12 * rate], rate)
    soundfile.write(b, signal[: 12 * rate], round(1.05 * rate))
    speed = rate / round(1.05 * rate)
    found = pair("a", "b", "near", a_end_s=12.0, b_end_s=12.0 * speed, speed=speed)
    view = View.of(found, 12.0, 12.0 * speed)
    assert (view.shared_from, view.shared_to) == (0.0, 1.0)
    end = slice(WIDTH // 2, WIDTH - 5)
    in_step = alike(*decode(draw_pair(a, b, found, view)), end)
    out_of_step = alike(*decode(draw_pair(a, b, dataclasses.replace(found, speed=1.0), view)), end)
    assert in_step > out_of_step + 0.1


def test_short_and_long_stretches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "short.wav", rng.normal(0, 0.1, 4800), 16_000)
    short = pair("a", "b", a_end_s=0.3, b_end_s=0.3)
    path = tmp_path / "short.wav"
    above, below = decode(draw_pair(path, path, short, View.of(short, 0.3, 0.3)))
    assert alike(above, below, slice(None)) > 0.95
    assert len(np.unique(above.reshape(-1, 4), axis=0)) > 50
    long = pair("a", "b", a_start_s=100.0, a_end_s=1000.0, b_end_s=900.0)
    view = View.of(long, 2000.0, 900.0)
    assert (view.start_s, view.seconds, view.shared_to) == (97.0, 60.0, 1.0)
    with pytest.raises(AudioError, match=r"ends before 9\d"):
        draw_pair(path, path, long, view)
