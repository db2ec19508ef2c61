"""Beam jobs and the ``earmark`` command, thin over ``index`` and ``encoders``."""
