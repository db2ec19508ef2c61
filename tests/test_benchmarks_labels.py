"""What the names of the corpus tell."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import corpus
from labels import label_of, read_rules


@pytest.mark.parametrize(
    ("package", "path", "label"),
    [
        ("lugaru-data", "Sounds/FootStepStone1.ogg", "footstep"),
        ("ufoai-sound", "sound/footsteps/grass3.ogg", "footstep"),
        ("hydrogen-drumkits", "The Black Pearl 1.0/SabianHatOpen-Hard.wav", "hihat_open"),
        ("hydrogen-drumkits", "The Black Pearl 1.0/SabianHatClosed-Hard.wav", "hihat_closed"),
        ("hydrogen-drumkits", "The Black Pearl 1.0/ZildjianSplash-Soft.wav", "crash_cymbal"),
        # The same words mean other things elsewhere.
        ("supertux-data", "sounds/splash.ogg", "splash"),
        ("supertux-data", "sounds/kick.wav", ""),
        ("megaglest-data", "units/archer/sounds/archer_ack1.wav", "speech"),
        ("megaglest-data", "units/archer/sounds/archer_attack1.wav", "arrow"),
        ("megaglest-data", "commondata/sounds/cow_die1.wav", "cow"),
        ("lincity-ng-data", "sounds/WindMill2.wav", ""),
        ("lomiri-sounds", "ringtones/Wind chime.ogg", "bell"),
        ("planetblupi-common", "planetblupi/sound/en/sound055.wav", ""),
    ],
)
def test_the_label_of_a_file(package: str, path: str, label: str) -> None:
    assert label_of(package, path) == label


def test_the_rules_are_well_formed() -> None:
    for rule in read_rules():
        assert rule.words
        assert all(word == word.lower() for word in rule.words)
        assert rule.label.replace("_", "").isalpha() or not rule.label


def test_thirty_classes_have_enough_recordings_and_packages() -> None:
    n: Counter[str] = Counter()
    packages = defaultdict(set)
    for package, entries in corpus.read_list().items():
        for entry in entries:
            if entry.role == "event" and (label := label_of(package, entry.path)):
                n[label] += 1
                packages[label].add(package)
    good = [label for label in n if n[label] >= 15 and len(packages[label]) >= 3]
    assert len(good) >= 60
