"""The keyring on a port of its own: it is never behind the public one."""

import argparse

from deploy.local.gateway import serve
from libs.common import telemetry
from services.privacy.keyring.app import create_app
from services.privacy.keyring.settings import KeyringSettings


def main() -> None:
    """Serve the keyring, configured by the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    settings = KeyringSettings()  # pyright: ignore[reportCallIssue] - the environment gives what is missing
    telemetry.start("keyring", level=settings.log_level)
    serve(create_app(settings), options.port)


if __name__ == "__main__":
    main()
