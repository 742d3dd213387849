"""Calls to addresses that somebody else has named: webhooks and processors. A hostile address gets nowhere.

    outgoing = Outgoing()
    answer = await outgoing.send("POST", url, headers={...}, content=body)    # raises NotSent

A name is resolved once, every address of the answer must be a public one, and the connection goes to exactly the one
that was looked at, with the name kept for TLS and `Host`: whoever answers otherwise next time changes nothing. There
are no redirects, no proxies, no cookies and no kept connections; a reply is read up to a bound, never decompressed, and
all of it takes a bounded time, however slowly it drips. What goes wrong is said in a fixed word.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, cast

import httpcore
import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]
"""`async resolve(name, port)`: every address of a name. Raises OSError when it has none."""

_SECONDS = 15.0
_REPLY_BYTES = 64 * 1024
_HEADER_BYTES = 16 * 1024

# IANA, special-purpose address registries (RFC 6890), and addresses that clouds give to services of their own.
_NOT_PUBLIC: Sequence[Network] = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
        # Of IPv6: Teredo and all else the IETF keeps for protocols, documentation, 6to4, AS112.
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")
"""The only part of IPv6 that is given out. What maps, translates or embeds IPv4 lies outside it, or is named above."""


class NotSent(Exception):
    """There is no reply. `word` says why, and quotes nothing."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply, of whatever status: a redirect too is only an answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


async def resolve(name: str, port: int) -> Sequence[Address]:
    """Every address that the system's resolver has for a name."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    # A link-local address may come with its interface.
    return list(dict.fromkeys(ip_address(str(place[0]).partition("%")[0]) for *_, place in found))


class Outgoing:
    """Sends to strangers. `networks` are let through although they are not public, `plain` allows http: both are for an
    operator who calls servers of their own. `authorities` is a PEM file of further certificate authorities.
    """

    def __init__(
        self,
        *,
        networks: Iterable[Network] = (),
        plain: bool = False,
        authorities: str | None = None,
        resolver: Resolver = resolve,
        seconds: float = _SECONDS,
        reply_bytes: int = _REPLY_BYTES,
    ) -> None:
        self._networks = tuple(networks)
        self._schemes = frozenset({b"https", b"http"} if plain else {b"https"})
        self._resolver = resolver
        self._seconds = seconds
        self._reply_bytes = reply_bytes
        self._tls = httpx.create_ssl_context(trust_env=False)
        if authorities is not None:
            self._tls.load_verify_locations(authorities)

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> Answer:
        """The reply to one request, of which nothing is tried twice. Raises NotSent."""
        request = self._request(method, url, headers or {}, content)
        backend = _Pinned(self._address)
        try:
            async with (
                asyncio.timeout(self._seconds),
                httpcore.AsyncConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            ):
                return await self._read(pool, request)
        except NotSent:
            raise
        except TimeoutError:
            raise NotSent("too-slow") from None
        except Exception as error:
            raise NotSent(_word(error)) from None

    def _request(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> httpcore.Request:
        target = httpx.URL(url)
        if target.raw_scheme not in self._schemes or not target.host or target.userinfo:
            raise NotSent("address-not-allowed")
        named = {
            "Host": target.netloc.decode("ascii"),
            "User-Agent": "Vitrine",
            "Accept-Encoding": "identity",
            "Content-Length": str(len(content)),
            **headers,
        }
        return httpcore.Request(
            method,
            httpcore.URL(
                scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
            ),
            headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in named.items()],
            content=content,
        )

    async def _address(self, name: str, port: int) -> Address:
        """The one to connect to. All that the name has are looked at: half of an answer is as good as none."""
        try:
            addresses = await self._resolver(name, port)
        except OSError:
            raise NotSent("name-not-found") from None
        if not addresses:
            raise NotSent("name-not-found")
        if not all(self._may_be_called(address) for address in addresses):
            raise NotSent("address-not-allowed")
        return addresses[0]

    def _may_be_called(self, address: Address) -> bool:
        return any(address in network for network in self._networks) or is_public(address)

    async def _read(self, pool: httpcore.AsyncConnectionPool, request: httpcore.Request) -> Answer:
        response = await pool.handle_async_request(request)
        try:
            if sum(len(name) + len(value) for name, value in response.headers) > _HEADER_BYTES:
                raise NotSent("reply-too-large")
            content = bytearray()
            async for piece in response.aiter_stream():
                content += piece
                if len(content) > self._reply_bytes:
                    raise NotSent("reply-too-large")
        finally:
            await response.aclose()
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
        }
        return Answer(response.status, headers, bytes(content))


def is_public(address: Address) -> bool:
    """Whether anybody on the Internet may be behind an address, and nobody nearer."""
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return False
    return not any(address in network for network in _NOT_PUBLIC if network.version == address.version)


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the address that was looked at, and to no other that the name may have by then."""

    def __init__(self, address_of: Callable[[str, int], Awaitable[Address]]) -> None:
        self._address_of = address_of
        self._network: httpcore.AsyncNetworkBackend = cast(Any, httpcore.AnyIOBackend)()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - of httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection. Raises NotSent for a name that must not be called."""
        address = await self._address_of(host, port)
        return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)


def _word(error: Exception) -> str:
    """Which of the few things it was that can go wrong between two servers."""
    match error:
        case _ if _is_of_tls(error):
            return "certificate-not-valid"
        case httpcore.ConnectError():
            return "not-reachable"
        case httpcore.TimeoutException():
            return "too-slow"
        case _:
            return "broken-off"


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
