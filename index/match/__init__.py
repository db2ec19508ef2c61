"""Hits to matches: which recording, from where to where, and how sure.

Query windows are taken ``STEPS`` times as densely as reference windows, so that the alignment of a
query with a recording is a whole number of query steps: ``lag = STEPS * j - i`` for reference
window ``j`` and query window ``i``. Every hit proposes a lag (``candidates``); those whose
surroundings agree best are rescored with all windows of the sequence, at several speeds
(``rescore``), which gives alignments (``align``); the signs of the two spectrograms are compared
(``detail``); what speaks for each and against it
(``evidence``) becomes a score (``score``). What is reported is placed more finely (``timing``).
"""

from index.match.align import Alignment, lay, refine
from index.match.candidates import STEPS, sounding
from index.match.detail import ENOUGH, Spectrogram
from index.match.evidence import FEATURES, Evidence
from index.match.find import QUICK_FROM, Hits, find_alignments, look_quickly
from index.match.score import Scored, score_alignments
from index.match.timing import sharpen

__all__ = [
    "EDGE",
    "ENOUGH",
    "FEATURES",
    "QUICK_FROM",
    "STEPS",
    "Alignment",
    "Evidence",
    "Hits",
    "Scored",
    "Spectrogram",
    "find_alignments",
    "lay",
    "look_quickly",
    "refine",
    "score_alignments",
    "sharpen",
    "sounding",
]

EDGE = STEPS // 2
"""Query windows before the first whole one and after the last: a clip of one second, too, meets the
reference windows on both sides of it."""
