"""Floor 3: where a run is shown beside its own folder. A new place is one module here."""
