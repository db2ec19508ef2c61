"""How well sound events are found, measured through the real ingest and its stored columns.

``sounds`` ingests the labelled events of a corpus; each part of the evaluation (``retrieval``,
``few_shot``, …) is a function of them; ``run`` leads through the parts and writes the report.
"""
