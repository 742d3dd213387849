"""Calls to strangers, against real sockets that are slow, lie, vanish, redirect, and whose names lead astray."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from libs.common.outgoing import Address, NotSent, Outgoing, is_public

LOCAL = [ip_network("127.0.0.0/8")]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """The port of a server that talks so."""
    open_still: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_still.add(writer)
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_still:
            writer.close()


def saying(reply: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()

    return talk


def outgoing(**more: object) -> Outgoing:
    return Outgoing(**({"networks": LOCAL, "plain": True, "seconds": 5} | more))  # type: ignore[arg-type]


async def refused(sender: Outgoing, url: str) -> str:
    with pytest.raises(NotSent) as caught:
        await sender.send("POST", url, content=b"{}")
    return caught.value.word


async def test_a_call_arrives_as_it_was_meant() -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        heard.append(await reader.readexactly(2))
        writer.write(b"HTTP/1.1 202 Accepted\r\nX-One: 1\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with listening(talk) as port:
        answer = await outgoing().send(
            "POST", f"http://127.0.0.1:{port}/a/b?c=d", headers={"X-Mine": "2"}, content=b"{}"
        )
    assert (answer.status, answer.content, answer.headers["x-one"]) == (202, b"ok", "1")
    head = heard[0].decode()
    assert head.startswith("POST /a/b?c=d HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n" in head
    assert "X-Mine: 2\r\n" in head and heard[1] == b"{}"
    assert "gzip" not in head.lower() and "cookie" not in head.lower()


# --- Where it leads --------------------------------------------------------------------------------------

NOT_PUBLIC = (
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "168.63.129.16", "100.100.100.200"),
    *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    # IPv4 in disguise: mapped, compatible, 6to4, NAT64, Teredo.
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1"),
    *("64:ff9b:1::1", "2001:0:7f00:1::1"),
)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_nobody_near_is_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4007::1"])
def test_whoever_is_far_is(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: Address) -> None:
    if is_public(address):
        assert not (address.is_private or address.is_loopback or address.is_link_local)
        assert not (address.is_multicast or address.is_reserved or address.is_unspecified)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0"],
)
async def test_this_machine_is_not_called_under_any_name(host: str) -> None:
    async with listening(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        word = await refused(outgoing(networks=[]), f"http://{host}:{port}/")
    assert word in {"address-not-allowed", "name-not-found"}


@pytest.mark.parametrize(
    "url", ["ftp://example.com/", "file:///etc/passwd", "https://user:secret@example.com/", "https:///x"]
)
async def test_an_address_of_another_kind_is_not_called(url: str) -> None:
    assert await refused(outgoing(), url) == "address-not-allowed"


async def test_http_is_called_only_where_the_operator_lets_it() -> None:
    assert await refused(outgoing(plain=False), "http://127.0.0.1/") == "address-not-allowed"


def resolving(*answers: Sequence[str]) -> tuple[Callable[[str, int], Awaitable[list[Address]]], list[str]]:
    """A resolver that gives one answer after the other, and what it was asked."""
    asked: list[str] = []

    async def resolve(name: str, port: int) -> list[Address]:
        asked.append(name)
        return [ip_address(one) for one in answers[min(len(asked), len(answers)) - 1]]

    return resolve, asked


async def test_a_name_that_leads_to_another_address_the_second_time_is_asked_once() -> None:
    resolver, asked = resolving(["127.0.0.1"], ["10.0.0.1"])
    async with listening(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as port:
        answer = await outgoing(resolver=resolver).send("POST", f"http://shop.example:{port}/")
    assert answer.status == 204 and asked == ["shop.example"]


async def test_one_address_nearby_spoils_the_whole_answer() -> None:
    resolver, _ = resolving(["93.184.216.34", "169.254.169.254"])
    sender = outgoing(networks=[], resolver=resolver)
    assert await refused(sender, "https://shop.example/") == "address-not-allowed"


async def test_a_name_without_an_address_is_not_found() -> None:
    async def nothing(_: str, __: int) -> list[Address]:
        raise OSError

    assert await refused(outgoing(resolver=nothing), "https://shop.example/") == "name-not-found"
    resolver, _ = resolving([])
    assert await refused(outgoing(resolver=resolver), "https://shop.example/") == "name-not-found"


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    called: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        called.append(await reader.read())

    async with listening(elsewhere) as other:
        reply = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{other}/\r\n\r\n"
        async with listening(saying(reply.encode())) as port:
            answer = await outgoing().send("POST", f"http://127.0.0.1:{port}/")
    assert answer.status == 307 and not called


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with listening(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as port:
        assert (await outgoing().send("GET", f"http://127.0.0.1:{port}/")).status == 204


# --- Slow, lying and vanished ----------------------------------------------------------------------------


async def test_whoever_drips_byte_by_byte_is_given_up() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with listening(drip) as port:
        assert await refused(outgoing(seconds=0.5), f"http://127.0.0.1:{port}/") == "too-slow"


async def test_whoever_says_nothing_is_given_up() -> None:
    async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(mute) as port:
        assert await refused(outgoing(seconds=0.3), f"http://127.0.0.1:{port}/") == "too-slow"


async def test_a_name_that_takes_for_ever_is_given_up() -> None:
    async def never(_: str, __: int) -> list[Address]:
        await asyncio.Event().wait()
        return []

    assert await refused(outgoing(resolver=never, seconds=0.2), "https://shop.example/") == "too-slow"


async def test_a_reply_without_end_is_cut_off() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with listening(flood) as port:
        assert await refused(outgoing(), f"http://127.0.0.1:{port}/") == "reply-too-large"


async def test_headers_without_end_are_cut_off() -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 900) for number in range(40))
    async with listening(saying(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n")) as port:
        assert await refused(outgoing(), f"http://127.0.0.1:{port}/") == "reply-too-large"

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            writer.write(b"y" * 65536)
            await writer.drain()

    async with listening(endless) as port:
        assert await refused(outgoing(), f"http://127.0.0.1:{port}/") == "broken-off"


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 20_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with listening(saying(head + bomb)) as port:
        answer = await outgoing().send("POST", f"http://127.0.0.1:{port}/")
    assert answer.content == bomb


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
async def test_a_reply_that_lies_or_breaks_off_is_none(reply: bytes) -> None:
    async with listening(saying(reply)) as port:
        assert await refused(outgoing(), f"http://127.0.0.1:{port}/") == "broken-off"


async def test_nobody_there_is_not_reachable() -> None:
    async with listening(saying(b"")) as port:
        pass
    assert await refused(outgoing(), f"http://127.0.0.1:{port}/") == "not-reachable"


# --- TLS -------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> Path:
    """A certificate of its own authority, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return file


async def test_the_name_is_kept_for_tls_although_the_address_is_called(tmp_path: Path) -> None:
    file = certificate(tmp_path, "shop.example")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(file)
    named: list[str | None] = []
    served.sni_callback = lambda _, name, __: named.append(name)  # type: ignore[assignment]
    resolver, _ = resolving(["127.0.0.1"])
    async with listening(saying(b"HTTP/1.1 204 No Content\r\n\r\n"), served) as port:
        trusting = outgoing(resolver=resolver, authorities=str(file))
        assert (await trusting.send("POST", f"https://shop.example:{port}/")).status == 204
        assert named == ["shop.example"]
        # Under another name, and for whoever does not know the authority, it is not whom we meant.
        assert await refused(trusting, f"https://other.example:{port}/") == "certificate-not-valid"
        doubting = outgoing(resolver=resolver)
        assert await refused(doubting, f"https://shop.example:{port}/") == "certificate-not-valid"
