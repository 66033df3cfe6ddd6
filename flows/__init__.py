"""The recipes. Importing this package sets the project's defaults for Prefect, before Prefect is imported.

The environment wins over everything here. Nothing heavy is imported: `--help` must stay quick.
"""

from __future__ import annotations

import os

__all__ = ["STATUS_FAILED", "STATUS_OK", "STATUS_PENDING", "STATUS_USAGE"]

STATUS_OK, STATUS_FAILED, STATUS_USAGE, STATUS_PENDING = 0, 1, 2, 75
"""Exit statuses of every command (a contract)."""

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # 10 s on an idle machine; 120 s were too few where other work left it a tenth of a core.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    # A flow whose server is busy with hundreds of requests waits for its answer instead of failing after a minute.
    "PREFECT_API_REQUEST_TIMEOUT": "300",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "ohp",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
