"""Other audio fingerprinters, each behind the same two calls, for a comparison on equal terms.

How each is installed and set, and why that way, is told in ``docs/peers.md``.
"""

from __future__ import annotations

from pipelines.peers.audfprint import Audfprint
from pipelines.peers.chromaprint import Chromaprint
from pipelines.peers.peer import NOTHING, Answer, Peer, Progress

__all__ = [
    "NOTHING",
    "Answer",
    "Audfprint",
    "Chromaprint",
    "Peer",
    "Progress",
    "installed_peers",
]


def installed_peers() -> list[Peer]:
    """The peers whose program is on this machine."""
    peers: list[Peer] = []
    if Audfprint.is_installed():
        peers.append(Audfprint())
    if Chromaprint.is_installed():
        peers.append(Chromaprint())
    return peers
