"""The demo store of `make run`: a merchant, a store, 200 products. Run once, on the first start."""

import argparse
import asyncio

import httpx

from deploy.local.shop import CATALOGUE, PASSWORD, Shop

MERCHANT = "merchant@vitrine.example"
SLUG = "papeterie"


async def seed(url: str) -> str:
    """Sign the demo merchant up, open the store, import the catalogue. Returns the store's id."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        shop = Shop(http)
        merchant = await shop.sign_up(MERCHANT, name="Demo merchant")
        owner = await shop.open_store(merchant, name="Papeterie", slug=SLUG)
        await shop.import_catalogue(owner, CATALOGUE.read_bytes())
        return owner.store_id


def main() -> None:
    """Say what was made and how to sign in."""
    parser = argparse.ArgumentParser(description="Put the demo store into a running platform.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    url = parser.parse_args().url
    store_id = asyncio.run(seed(url))
    print(f"demo store   {url}/catalog/v1/stores/{store_id}/products")
    print(f"its rights   {url}/privacy/form?store={store_id}")
    print(f"merchant     {MERCHANT}, password: {PASSWORD}")


if __name__ == "__main__":
    main()
