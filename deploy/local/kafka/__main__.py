"""`make kafka`: fetch Apache Kafka, start one node, and stop it with Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from deploy.local.errors import StartError
from deploy.local.kafka import KafkaServer, fetch, libraries


async def serve(data: Path, port: int) -> None:
    """Run a node until SIGINT or SIGTERM."""
    asked_to_stop = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, asked_to_stop.set)
    server = KafkaServer(data, port)
    print("Starting Apache Kafka …", flush=True)
    try:
        await server.start()
        print(f"KAFKA_BOOTSTRAP_SERVERS={server.bootstrap_servers}", flush=True)
        print("Run the platform on it with `BROKER=kafka make run`. Ctrl-C stops.", flush=True)
        await asked_to_stop.wait()
    finally:
        await server.stop()


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="make kafka", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(".vitrine/kafka"), help="folder of its data")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--fetch-only", action="store_true", help="fetch the programs and stop")
    options = parser.parse_args()
    try:
        if options.fetch_only:
            asyncio.run(fetch())
            print(f"Apache Kafka is in {libraries()}.")
        else:
            asyncio.run(serve(options.data, options.port))
    except StartError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
