"""Prefect's server and worker of a data root, and the deployments registered there.

python -m deployments server --background
python -m deployments worker --background
python -m deployments deploy
python -m deployments status
python -m deployments stop

Everything Prefect keeps lies under DATA_ROOT/.prefect. Starting what runs already does nothing.
"""

from __future__ import annotations

import argparse
import sys

from pydantic import Field

from deployments._service import deploy, start_server, start_worker, status, stop
from flows._cli import Command
from models.base import Record
from models.settings import Settings
from models.telescope import Telescope


class ServiceOptions(Record):
    """How server and worker run."""

    host: str = Field("127.0.0.1", description="address the server listens on")
    port: int | None = Field(
        None, ge=1, le=65535, description="port of the server (PREFECT_SERVER_API_PORT, default 4200)"
    )
    background: bool = Field(False, description="start it, wait until it is up, and return")
    limit: int = Field(2, ge=1, description="runs the worker has at work at once")


_ACTIONS = {"server": start_server, "worker": start_worker, "deploy": deploy, "status": status, "stop": stop}

command = Command("deployments", __doc__ or "", writes=False, options=ServiceOptions)
command.parser.add_argument("action", choices=_ACTIONS, help="what to do")


def _act(args: argparse.Namespace, settings: Settings, telescope: Telescope) -> int:
    return _ACTIONS[args.action](command, command.options_of(args, ServiceOptions))


if __name__ == "__main__":
    sys.exit(command.run(_act))
