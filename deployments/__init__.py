"""Server, worker and deployments of an installation: `python -m deployments --help`, `docs/deployment.md`."""
