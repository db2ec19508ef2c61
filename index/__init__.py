"""Vectors in, matches out: the catalog, the FAISS index, matching. No Beam, no TensorFlow."""
