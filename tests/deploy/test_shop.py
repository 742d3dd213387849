"""Who drives a platform by its API and mailbox waits for what it has asked for, and takes nothing older for it."""

import json

import httpx

from deploy.local.shop import Shop


async def test_whoever_returns_waits_for_the_mail_of_the_new_sign_up() -> None:
    """The mail of an earlier life is still there, with a link that is not valid any more."""
    listed = iter([["old"], ["old"], ["new", "old"]])
    confirmed: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        match request.url.path.rpartition("/")[2]:
            case "messages":
                return httpx.Response(200, json=[{"id": id_} for id_ in next(listed)])
            case "old" | "new" as id_:
                link = f"https://shop.example/confirm#token={id_}"
                return httpx.Response(200, json={"text": link, "links": [link]})
            case "accounts":
                return httpx.Response(202)
            case "confirmations":
                confirmed.append(json.loads(request.content)["token"])
                return httpx.Response(200)
            case _:
                return httpx.Response(200, json={"access_token": "a", "refresh_token": "b"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://shop") as http:
        await Shop(http).sign_up("person@vitrine.example")

    assert confirmed == ["new"]
