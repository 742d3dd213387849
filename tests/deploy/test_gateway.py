"""The gateway in front of the services, and the mailbox that receives by real SMTP."""

import asyncio
import smtplib
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

from deploy.local.gateway import create_gateway
from deploy.local.mailbox import KEPT, Mailbox
from deploy.local.ports import free_port
from deploy.local.waiting import until


def a_service(name: str, started: list[str]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        started.append(name)
        yield
        started.remove(name)

    app = FastAPI(lifespan=lifespan, docs_url=f"/{name}/docs", openapi_url=f"/{name}/openapi.json")

    @app.post(f"/{name}/v1/echo")
    async def echo(request: Request) -> dict[str, str | int]:  # pyright: ignore[reportUnusedFunction]
        return {"service": name, "bytes": len(await request.body())}

    return app


class Running:
    def __init__(self, folder: Path) -> None:
        self.started: list[str] = []
        self.mailbox = Mailbox(folder / "mailbox")
        self.smtp_port = free_port()
        self.port = free_port()
        services = {name: a_service(name, self.started) for name in ("catalog", "orders")}
        self.demo_store = folder / "demo-store.txt"
        gateway = create_gateway(services, self.mailbox, self.smtp_port, self.demo_store)
        self.server = uvicorn.Server(
            uvicorn.Config(gateway, host="127.0.0.1", port=self.port, log_config=None, lifespan="on")
        )

    async def send(self, *, to: str, subject: str, text: str) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
        mail.set_content(text)

        def deliver() -> None:
            with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=10) as smtp:
                smtp.send_message(mail)

        await asyncio.to_thread(deliver)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    serving = asyncio.create_task(running.server.serve())

    async def is_up() -> bool:
        return running.server.started

    await until(is_up, 10, "the gateway did not start")
    yield running
    running.server.should_exit = True
    await asyncio.wait_for(serving, 10)


@pytest.fixture
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}") as client:
        yield client


async def test_each_service_answers_its_own_paths_with_the_body_untouched(client: httpx.AsyncClient) -> None:
    for name in ("catalog", "orders"):
        answer = await client.post(f"/{name}/v1/echo", content=b"x" * 300_000)
        assert answer.json() == {"service": name, "bytes": 300_000}


async def test_services_start_and_stop_with_the_gateway(tmp_path: Path) -> None:
    running = Running(tmp_path)
    serving = asyncio.create_task(running.server.serve())

    async def is_up() -> bool:
        return running.server.started

    await until(is_up, 10, "the gateway did not start")
    assert running.started == ["catalog", "orders"]
    running.server.should_exit = True
    await asyncio.wait_for(serving, 10)
    assert running.started == []


@pytest.mark.parametrize("path", ["/nowhere", "/catalogue/v1/echo", "//catalog/v1/echo", "/mailbox/nothing"])
async def test_anything_else_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404


async def test_a_wrong_method_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.post("/mailbox/messages")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert "GET" in answer.headers["allow"]


async def test_the_front_page_leads_to_every_service_and_loads_nothing(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    for name in ("catalog", "orders"):
        assert f'href="/{name}/docs"' in page.text
        assert f'href="/{name}/openapi.json"' in page.text
    assert "src=" not in page.text
    assert "url(" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_the_front_page_shows_the_demo_store_once_it_is_filled(
    running: Running, client: httpx.AsyncClient
) -> None:
    assert "demo store" not in (await client.get("/")).text
    running.demo_store.write_text("demo store   {url}/catalog/v1/stores/1/products\n")
    # On whichever port it was filled, the link leads to where the page is read.
    link = f'href="{str(client.base_url).rstrip("/")}/catalog/v1/stores/1/products"'
    assert link in (await client.get("/")).text


async def test_a_mail_is_received_listed_and_shown(running: Running, client: httpx.AsyncClient) -> None:
    await running.send(to="first@example.com", subject="One", text="Nothing to follow.")
    await running.send(
        to="Second@example.com",
        subject="Confirm é",
        text="Open http://127.0.0.1:8000/identity/v1/confirm?token=a-b_c.\n<script>alert(1)</script>",
    )
    newest, oldest = (await client.get("/mailbox/messages")).json()
    assert (newest["subject"], newest["to"]) == ("Confirm é", ["Second@example.com"])
    assert oldest["subject"] == "One"
    assert (await client.get("/mailbox/messages", params={"to": "second@example.com"})).json() == [newest]

    message = (await client.get(f"/mailbox/messages/{newest['id']}")).json()
    assert message["links"] == ["http://127.0.0.1:8000/identity/v1/confirm?token=a-b_c"]
    assert "alert(1)" in message["text"]

    shown = await client.get(f"/mailbox/{newest['id']}")
    assert "&lt;script&gt;" in shown.text
    assert "<script" not in shown.text
    assert newest["id"] in (await client.get("/mailbox")).text


async def test_mails_are_private_files_that_survive_a_restart(running: Running) -> None:
    await running.send(to="somebody@example.com", subject="Kept", text="Words")
    (file,) = files_of(running.mailbox)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (summary,) = Mailbox(running.mailbox.folder).messages()
    assert summary.subject == "Kept"


def files_of(mailbox: Mailbox) -> list[Path]:
    return list(mailbox.folder.glob("*.eml"))


async def test_only_the_last_thousand_are_kept(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    for number in range(KEPT + 3):
        await mailbox.keep(["a@example.com"], f"Subject: {number}\r\n\r\nx".encode())
    assert len(files_of(mailbox)) == KEPT
    subjects = [summary.subject for summary in mailbox.messages()]
    assert (subjects[0], subjects[-1]) == (str(KEPT + 2), "3")
