"""Every error a user can cause or meet; anything else that is raised is a bug and surfaces."""

from __future__ import annotations


class EarmarkError(Exception):
    """Base of all expected errors. Its message says what is wrong and what to do about it."""


class AudioError(EarmarkError):
    """A source that gives no audio.

    Parameters
    ----------
    stage : str
        Where it failed: ``"open"`` (no bytes to be had), ``"probe"`` (no audio format
        recognised), or ``"decode"`` (recognised, but not one sample came out).
    reason : str
        One line for a person.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


class BundleError(EarmarkError):
    """An encoder bundle that is missing, damaged, or does not fit what it is used on."""


class CatalogError(EarmarkError):
    """A catalog that is missing, locked, damaged, or made by another encoder or version."""


class LabelError(EarmarkError):
    """Labels that cannot be read, or do not fit the recordings that they are about."""
