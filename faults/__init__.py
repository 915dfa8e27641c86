"""What real machines do to a run: kills, full and read-only disks, strange bytes. ``tox -e faults`` runs it."""
