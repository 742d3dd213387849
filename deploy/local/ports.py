"""Ports on the loopback address."""

import random
import socket

# Below the range from which Linux takes the local ports of outgoing connections (32768 and up): a client that
# keeps calling a stopped server inside that range can end up connected to itself, and holds the port.
_CHOICE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """True when nothing listens on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    for port in random.SystemRandom().sample(_CHOICE, 200):
        if is_free(port):
            return port
    raise OSError("none of 200 ports tried on 127.0.0.1 is free")
