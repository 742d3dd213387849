"""Certificates of processors, from a real authority over a real connection, and all that can be wrong with one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from libs.common.outgoing import Outgoing
from services.privacy.opendsr.certificates import Certificates, Untrusted
from services.privacy.opendsr.revocation import Revocations
from tests.privacy.opendsr.authority import Issuer, Web, new_key, now, pem, root, self_signed
from tests.serving import serving

NAME = "processor.vitrine.example"
LOOPBACK = [ip_network("127.0.0.0/8")]


@dataclass
class World:
    """An authority, one between, and a web that serves what they publish."""

    web: Web
    address: str
    root: Issuer
    between: Issuer
    key: RSAPrivateKey

    def leaf(self, *names: str, key: Any = None, **more: Any) -> x509.Certificate:
        given: dict[str, Any] = {"lists": [f"{self.address}/between.crl"]} | more
        return self.between.issue(names or (NAME,), key or self.key, **given)

    def serve(self, *certificates: x509.Certificate) -> None:
        self.web.files["cert.pem"] = pem(*certificates)

    def checking(self, *, of_ours: bool = False, roots: Any = None) -> Certificates:
        calls = Outgoing(networks=LOOPBACK, plain=True, seconds=5)
        return Certificates(calls, Revocations(calls), roots or [self.root.certificate], of_ours=of_ours)

    async def check(
        self, *, name: str = NAME, at: datetime | None = None, checking: Certificates | None = None
    ) -> x509.Certificate:
        return await (checking or self.checking()).of(name, f"{self.address}/cert.pem", now=at or now())

    async def refused(self, word: str, **how: Any) -> None:
        with pytest.raises(Untrusted) as error:
            await self.check(**how)
        assert error.value.word == word


@pytest.fixture(scope="module")
def rsa_key() -> RSAPrivateKey:
    return new_key()


@pytest.fixture
async def world(rsa_key: RSAPrivateKey) -> AsyncIterator[World]:
    web, authority = Web(), root()
    async with serving(web.app) as address:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = authority.issue(("Canary between",), key, authority=True, lists=[f"{address}/root.crl"])
        between = Issuer("between", key, certificate)
        web.files |= {"root.crl": authority.list_of_revoked(), "between.crl": between.list_of_revoked()}
        yield World(web, address, authority, between, rsa_key)


async def test_a_certificate_with_a_whole_chain_is_believed(world: World) -> None:
    leaf = world.leaf()
    world.serve(leaf, world.between.certificate)
    assert await world.check() == leaf


async def test_one_in_der_under_the_root_itself_is_believed(world: World) -> None:
    leaf = world.root.issue((NAME,), world.key, lists=[f"{world.address}/root.crl"])
    world.web.files["cert.pem"] = leaf.public_bytes(Encoding.DER)
    assert await world.check() == leaf


async def test_an_address_may_be_the_name(world: World) -> None:
    leaf = world.leaf("127.0.0.1")
    world.serve(leaf, world.between.certificate)
    assert await world.check(name="127.0.0.1") == leaf


async def test_a_wildcard_is_for_one_label(world: World) -> None:
    world.serve(world.leaf("*.vitrine.example"), world.between.certificate)
    assert await world.check()
    await world.refused("certificate-of-another-name", name="a.b.vitrine.example")


# --- What is wrong with one ------------------------------------------------------------------------------


async def test_an_expired_one_and_one_of_tomorrow_are_refused(world: World) -> None:
    world.serve(world.leaf(until=timedelta(seconds=-1)), world.between.certificate)
    await world.refused("certificate-expired")
    world.serve(world.leaf(since=timedelta(hours=1)), world.between.certificate)
    await world.refused("certificate-expired")


async def test_one_of_another_name_is_refused(world: World) -> None:
    world.serve(world.leaf("other.vitrine.example"), world.between.certificate)
    await world.refused("certificate-of-another-name")


async def test_a_self_signed_one_is_refused_even_where_it_is_trusted(world: World) -> None:
    alone = self_signed(NAME, world.key)
    world.serve(alone)
    await world.refused("certificate-self-signed")
    await world.refused("certificate-self-signed", checking=world.checking(roots=[alone], of_ours=True))


async def test_one_of_an_authority_nobody_knows_is_refused(world: World) -> None:
    world.serve(world.leaf(), world.between.certificate)
    await world.refused("certificate-not-trusted", checking=world.checking(roots=[root().certificate]))


async def test_one_without_the_certificate_between_is_refused(world: World) -> None:
    world.serve(world.leaf())
    await world.refused("certificate-not-trusted")


async def test_one_that_a_certificate_signed_which_may_sign_none_is_refused(world: World) -> None:
    leaf = world.leaf()
    forger = Issuer("forger", world.key, leaf)
    forged = forger.issue(("forged.vitrine.example", NAME), new_key())
    world.serve(forged, leaf, world.between.certificate)
    await world.refused("certificate-not-trusted")


async def test_one_for_another_purpose_is_refused(world: World) -> None:
    leaf = world.leaf(purposes=[ExtendedKeyUsageOID.CODE_SIGNING])
    world.serve(leaf, world.between.certificate)
    await world.refused("certificate-not-trusted")


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), new_key(1024)])
async def test_one_whose_key_does_not_sign_as_opendsr_wants_is_refused(world: World, key: Any) -> None:
    world.serve(world.leaf(key=key), world.between.certificate)
    await world.refused("certificate-key-not-usable")


@pytest.mark.parametrize("content", [b"", b"\x00", b"<html>", b"-----BEGIN CERTIFICATE-----\nMII\n"])
async def test_what_is_no_certificate_is_refused(world: World, content: bytes) -> None:
    world.web.files["cert.pem"] = content
    await world.refused("certificate-not-understood")


async def test_an_address_that_gives_nothing_is_refused(world: World) -> None:
    for status in (404, 302, 500):
        world.web.files["cert.pem"] = status
        await world.refused("certificate-not-reachable")
    strict = Certificates(
        Outgoing(plain=True), Revocations(Outgoing(plain=True)), [world.root.certificate], of_ours=False
    )
    world.serve(world.leaf(), world.between.certificate)
    await world.refused("certificate-not-reachable", checking=strict)


# --- Whether it was revoked ------------------------------------------------------------------------------


async def test_a_revoked_one_is_refused(world: World) -> None:
    leaf = world.leaf()
    world.serve(leaf, world.between.certificate)
    world.between.revoked.append(leaf.serial_number)
    world.web.files["between.crl"] = world.between.list_of_revoked()
    await world.refused("certificate-revoked")


async def test_one_is_refused_when_the_certificate_between_was_revoked(world: World) -> None:
    world.serve(world.leaf(), world.between.certificate)
    world.root.revoked.append(world.between.certificate.serial_number)
    world.web.files["root.crl"] = world.root.list_of_revoked()
    await world.refused("certificate-revoked")


async def test_a_list_that_cannot_be_had_or_believed_is_as_good_as_none(world: World) -> None:
    world.serve(world.leaf(), world.between.certificate)
    for bad in (
        404,
        b"no list",
        world.between.list_of_revoked(since=timedelta(days=-9), until=timedelta(days=-1)),
        world.between.list_of_revoked(since=timedelta(days=1), until=timedelta(days=2)),
        world.between.list_of_revoked(key=ec.generate_private_key(ec.SECP256R1())),
        world.root.list_of_revoked(),
    ):
        world.web.files["between.crl"] = bad
        await world.refused("revocation-unknown")


async def test_a_list_for_another_kind_of_certificate_is_no_answer(world: World) -> None:
    world.serve(world.leaf(), world.between.certificate)
    point = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(world.between.certificate.subject)
        .last_update(now())
        .next_update(now() + timedelta(days=1))
        .add_extension(point, critical=True)
    )
    world.web.files["between.crl"] = builder.sign(world.between.key, SHA256()).public_bytes(Encoding.DER)
    await world.refused("revocation-unknown")


async def test_a_responder_is_asked_where_there_is_no_list(world: World) -> None:
    leaf = world.leaf(lists=[], responders=[f"{world.address}/ocsp"])
    world.serve(leaf, world.between.certificate)
    world.web.files["ocsp"] = lambda _: world.between.answer(leaf)
    assert await world.check() == leaf
    world.between.revoked.append(leaf.serial_number)
    await world.refused("certificate-revoked")


async def test_whom_the_issuer_appointed_may_answer(world: World) -> None:
    leaf = world.leaf(lists=[], responders=[f"{world.address}/ocsp"])
    world.serve(leaf, world.between.certificate)
    key = new_key()
    appointed = world.leaf("responder.vitrine.example", key=key, purposes=[ExtendedKeyUsageOID.OCSP_SIGNING])
    world.web.files["ocsp"] = world.between.answer(leaf, by=Issuer("responder", key, appointed))
    assert await world.check() == leaf


async def test_a_responder_that_lies_is_not_believed(world: World) -> None:
    leaf, other = world.leaf(lists=[], responders=[f"{world.address}/ocsp"]), world.leaf()
    world.serve(leaf, world.between.certificate)
    not_appointed = Issuer("stranger", world.key, world.leaf())
    for bad in (
        world.between.answer(leaf, by=root()),
        world.between.answer(leaf, by=not_appointed),
        world.between.answer(other),
        world.between.answer(leaf, until=timedelta(days=-1)),
        world.between.answer(leaf, status=ocsp.OCSPCertStatus.UNKNOWN),
        ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(
            Encoding.DER
        ),
        b"nothing",
    ):
        world.web.files["ocsp"] = bad
        await world.refused("revocation-unknown")


async def test_one_that_names_nobody_to_ask_is_refused_unless_it_lives_days_or_is_of_ours(
    world: World,
) -> None:
    world.serve(world.leaf(lists=[]), world.between.certificate)
    await world.refused("revocation-unknown")
    assert await world.check(checking=world.checking(of_ours=True))
    world.serve(world.leaf(lists=[], until=timedelta(days=6)), world.between.certificate)
    assert await world.check()


# --- What is remembered ----------------------------------------------------------------------------------


async def test_what_was_checked_is_remembered_for_an_hour(world: World) -> None:
    checking, leaf = world.checking(), world.leaf()
    world.serve(leaf, world.between.certificate)
    began = now()
    await world.check(checking=checking, at=began)
    asked = len(world.web.asked)
    await world.check(checking=checking, at=began + timedelta(minutes=59))
    assert len(world.web.asked) == asked
    world.between.revoked.append(leaf.serial_number)
    await world.check(checking=checking, at=began + timedelta(minutes=61))
    # The lists are good until the next ones are due.
    assert world.web.asked[asked:] == ["cert.pem"]
    world.web.files["between.crl"] = world.between.list_of_revoked(until=timedelta(days=3))
    world.web.files["root.crl"] = world.root.list_of_revoked(until=timedelta(days=3))
    await world.refused("certificate-revoked", checking=checking, at=began + timedelta(days=2))


async def test_a_newer_one_is_fetched_when_a_signature_does_not_fit_and_no_more_than_once_a_minute(
    world: World,
) -> None:
    checking, old = world.checking(), world.leaf()
    url, began = f"{world.address}/cert.pem", now()
    world.serve(old, world.between.certificate)
    await checking.of(NAME, url, now=began)
    newer = world.leaf()
    world.serve(newer, world.between.certificate)
    assert await checking.of(NAME, url, now=began + timedelta(seconds=30), newer_than=old) == old
    assert await checking.of(NAME, url, now=began + timedelta(seconds=61), newer_than=old) == newer
