"""What every row of a catalog has in common: features, encoders, what is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import pyarrow as pa

from encoders.features import FeatureSpec
from encoders.signs import sign_shape
from index.schema import FORMAT_VERSION, RECORDINGS, windows_schema

# Key of the configuration in the metadata of every Parquet file.
_METADATA_KEY = b"earmark"


@dataclasses.dataclass(frozen=True)
class EncoderInfo:
    """Which encoder made a column of vectors."""

    name: str
    sha256: str
    precision: str
    dim: int


@dataclasses.dataclass(frozen=True)
class CatalogConfig:
    """What every row of a catalog has in common.

    Parameters
    ----------
    spec : FeatureSpec
    fingerprint : EncoderInfo
    latent : EncoderInfo or None
        None where latents are not stored with the windows.
    keep_mfcc : str
        ``"summary"``, or ``"full"`` for every MFCC frame as well.
    columns : dict of EncoderInfo
        Further embeddings, which can be added later: they change neither :attr:`sha256` nor what
        the parts of windows carry.
    """

    spec: FeatureSpec
    fingerprint: EncoderInfo
    latent: EncoderInfo | None
    keep_mfcc: str = "summary"
    columns: dict[str, EncoderInfo] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``catalog.json``."""
        content = self._base_dict()
        if self.columns:
            content["columns"] = {n: dataclasses.asdict(e) for n, e in self.columns.items()}
        return content

    def _base_dict(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "spec": self.spec.to_dict(),
            "encoders": {
                role: dataclasses.asdict(info)
                for role, info in (("fingerprint", self.fingerprint), ("latent", self.latent))
                if info is not None
            },
            "keep_mfcc": self.keep_mfcc,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> CatalogConfig:
        """Inverse of :meth:`to_dict`."""
        encoders = {role: EncoderInfo(**info) for role, info in content["encoders"].items()}
        return cls(
            spec=FeatureSpec(**content["spec"]),
            fingerprint=encoders["fingerprint"],
            latent=encoders.get("latent"),
            keep_mfcc=content["keep_mfcc"],
            columns={n: EncoderInfo(**e) for n, e in content.get("columns", {}).items()},
        )

    @property
    def sha256(self) -> str:
        """Hash of all of it, but for the encoders' names and the further columns."""
        content = self._base_dict()
        for encoder in content["encoders"].values():
            del encoder["name"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def windows_schema(self) -> pa.Schema:
        """Schema of the windows parts."""
        frames = self.spec.window_frames if self.keep_mfcc == "full" else 0
        latent_dim = self.latent.dim if self.latent else 0
        schema = windows_schema(
            self.fingerprint.dim,
            math.prod(self.sign_shape),
            latent_dim,
            self.spec.n_mfcc,
            frames,
        )
        return schema.with_metadata(self._metadata)

    @property
    def sign_shape(self) -> tuple[int, int]:
        """Of the signs of a window: see :func:`encoders.signs.sign_shape`."""
        return sign_shape(self.spec)

    @property
    def recordings_schema(self) -> pa.Schema:
        """Schema of the recordings parts."""
        return RECORDINGS.with_metadata(self._metadata)

    def column_schema(self, name: str) -> pa.Schema:
        """Schema of the parts of a further column; its metadata name the encoder that made it."""
        info = self.columns[name]
        # All zeros where the sound could not be read again: Parquet has no null of a fixed size.
        field = pa.field("embedding", pa.list_(pa.float32(), info.dim), nullable=False)
        about = {"spec": self.spec.to_dict(), "encoder": dataclasses.asdict(info)}
        return pa.schema([field], {_METADATA_KEY: json.dumps(about, sort_keys=True).encode()})

    @property
    def column_schemas(self) -> dict[str, pa.Schema]:
        """Schemas of the parts of all further columns, by name."""
        return {name: self.column_schema(name) for name in self.columns}

    @property
    def _metadata(self) -> dict[bytes, bytes]:
        return {_METADATA_KEY: json.dumps(self._base_dict(), sort_keys=True).encode()}

    def differences(self, other: CatalogConfig) -> list[str]:
        """What sets two configurations apart, in words: ``"<what>: <mine>, not <the other's>"``."""
        found = []
        for role in ("fingerprint", "latent"):
            mine, theirs = getattr(self, role), getattr(other, role)
            if mine is None or theirs is None:
                if mine is not theirs:
                    found.append(f"{role}: {_stored(mine)}, not {_stored(theirs)}")
            elif mine.sha256 != theirs.sha256:
                found.append(
                    f"{role} encoder: {mine.name} ({mine.sha256[:12]}), "
                    f"not {theirs.name} ({theirs.sha256[:12]})"
                )
            elif mine.precision != theirs.precision:
                found.append(f"{role} precision: {mine.precision}, not {theirs.precision}")
        for field in dataclasses.fields(FeatureSpec):
            a, b = getattr(self.spec, field.name), getattr(other.spec, field.name)
            if a != b:
                found.append(f"{field.name}: {a}, not {b}")
        if self.keep_mfcc != other.keep_mfcc:
            found.append(f"MFCCs kept: {self.keep_mfcc}, not {other.keep_mfcc}")
        return found


def _stored(encoder: EncoderInfo | None) -> str:
    return "not stored" if encoder is None else f"by {encoder.name} ({encoder.sha256[:12]})"
