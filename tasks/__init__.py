"""One folder a subject: Prefect tasks (`tasks.py`) around pure functions (everything else)."""
