"""A store, and the people in it who may use their rights, each once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from bench import processors
from bench.multitude import multiply
from bench.office import Office
from bench.people import Crowd, Person
from deploy.local.platform import Platform
from deploy.local.shop import Account, Shop

_SEALED = 10_000
"""People at most whose boxes open; the rest of a larger crowd are copies of their rows."""


@dataclass
class Town:
    """Of one platform."""

    platform: Platform
    seller: Shop
    owner: Account
    crowd: Crowd
    office: Office
    size: int = 0
    _asked: int = 0

    @classmethod
    async def of(cls, platform: Platform, seller: Shop, owner: Account) -> Self:
        """With nobody in it yet."""
        listed = await seller.call(
            "GET", f"/catalog/v1/stores/{owner.store_id}/products", params={"limit": 1}
        )
        store_id = UUID(owner.store_id)
        crowd = Crowd(platform.environment, store_id, UUID(listed["items"][0]["id"]))
        office = Office(
            url=platform.url, database_url=platform.environment["PRIVACY_DATABASE_URL"], store_id=store_id
        )
        return cls(platform, seller, owner, crowd, office)

    @property
    def store_id(self) -> UUID:
        """The store's id."""
        return UUID(self.owner.store_id)

    async def grow_to(self, size: int) -> None:
        """So many people, and what PostgreSQL knows of their tables is fresh."""
        print(f"  filling the store with {size:,} people …", flush=True)
        if len(self.crowd.people) < min(size, _SEALED):
            await self.crowd.grow_to(min(size, _SEALED))
            self.size = len(self.crowd.people)
        await multiply(self.platform.postgres, self.store_id, self.size, max(1, size // self.size))
        self.size = size

    def take(self, number: int) -> Sequence[Person]:
        """People who have asked for nothing yet. Raises RuntimeError when there are not so many left."""
        self._asked += number
        if self._asked > len(self.crowd.people):
            raise RuntimeError("everybody whose boxes open has asked for something")
        return self.crowd.people[self._asked - number : self._asked]

    def put_back(self, number: int) -> None:
        """The last so many who were taken were asked for nothing after all."""
        self._asked -= number

    async def let_pass(self, right: str, how: str) -> None:
        """Decide whether requests of a right wait for a preview that finds nothing in their way."""
        # Among a million people the token that the store was opened with has long expired.
        self.owner = await self.seller.act_at(
            await self.seller.sign_in(self.owner.email), self.owner.store_id
        )
        path = f"/privacy/v1/stores/{self.owner.store_id}/settings"
        seen = await self.seller.http.get(path, headers=self.owner.headers)
        headers = self.owner.headers | {"If-Match": seen.headers["etag"]}
        await self.seller.call("PUT", path, json={"passing": {right: how}}, headers=headers, expect=204)

    def used(self) -> Mapping[str, float]:
        """The processor time of each process so far, in seconds."""
        return processors.seconds(self.platform)
