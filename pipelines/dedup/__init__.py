"""What becomes of pairs of duplicates: clusters, lists, a report, and files put aside."""
