"""Audio in, vectors out: decoding, features, and the encoders. No Beam and no FAISS here."""
