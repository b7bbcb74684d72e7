"""`jokr bench`: how fast a model runs here, engine by engine, and how far that is from what the machine could do."""
