"""Programs for the people who develop the pipeline."""
