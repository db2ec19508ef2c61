"""How well fingerprints find music again, measured through the real ingest, index and identify.

``selection`` chooses files and ``references`` ingests them; ``queries`` lists the queries and
``conditions`` plays them; ``work`` puts them to the systems and ``truth`` judges the answers, kept
by ``answers``; ``run`` leads through it all, and ``results``, ``report`` and ``plots`` tell.
"""
