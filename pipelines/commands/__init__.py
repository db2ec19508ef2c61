"""The subcommands of ``earmark``, one module each; heavy imports inside the functions."""
