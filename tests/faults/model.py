"""A plain model of the platform: what each life of each person lets be read, what a restore may lose, and what never.

One attribute for each database. A backup is a copy of all of them; a restore puts some back, and asks again what is
known to have been asked. Whatever a database knew alone and learned after its backup is lost with it. An erased life is
in no copy: its keys are gone from the keyring, whatever is put back.
"""

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from deploy.local.environment import SERVICES

UNREADABLE = "cannot be read: its key was lost with the keyring's"
ABSENT = "is not there"
ANYTHING = "is as it may"
KEPT_BY_LAW = frozenset({"accounting", "request"})
"""What an erasure leaves: keys of invoices, and of requests with the answers to them."""


@dataclass(frozen=True, slots=True, order=True)
class Life:
    """From the first meeting to the erasure; whoever comes back has another."""

    person: str
    number: int

    def __str__(self) -> str:
        return self.person if self.number == 1 else f"{self.person} (life {self.number})"


@dataclass(frozen=True, slots=True)
class Key:
    """What a box lies under. `turn` tells a key from one that took its place while it was on hold."""

    kind: str
    life: Life
    of: str = ""
    turn: int = 0


@dataclass
class Row:
    """Something personal: whose it is, what it says, and under which key."""

    life: Life | None
    name: str | None
    key: Key | None


@dataclass
class Account(Row):
    """Of the identity database."""

    closed: bool = False


@dataclass
class Order(Row):
    """Of the orders database."""

    state: str = "awaiting_payment"


@dataclass
class Invoice(Row):
    """Of billing. Of somebody on hold it waits for its buyer, who is still with what was owed."""

    order: str = ""
    waits: bool = False


@dataclass
class Billing:
    """What is owed, by order, and invoices, by their ids."""

    owed: dict[str, Row] = field(default_factory=dict[str, Row])
    invoices: dict[str, Invoice] = field(default_factory=dict[str, Invoice])


@dataclass
class Request:
    """Of the privacy database, once it has ended. `ended` is its place among all."""

    life: Life
    right: str
    ended: int
    key: Key
    value: str = ""


@dataclass
class Keyring:
    """Keys that are there, and those of them that are on hold."""

    keys: set[Key] = field(default_factory=set[Key])
    closed: set[Key] = field(default_factory=set[Key])


@dataclass
class Databases:
    """What a backup copies."""

    identity: dict[Life, Account] = field(default_factory=dict[Life, Account])
    orders: dict[str, Order] = field(default_factory=dict[str, Order])
    billing: Billing = field(default_factory=Billing)
    privacy: dict[str, Request] = field(default_factory=dict[str, Request])
    keyring: Keyring = field(default_factory=Keyring)
    catalog: None = None
    broker: None = None
    holds: dict[str, set[Life]] = field(
        default_factory=lambda: {service: set[Life]() for service in SERVICES}
    )
    """Whose timers stand still, by service."""


@dataclass
class Backup:
    """A copy, and how much had happened by then."""

    databases: Databases
    happened: int


@dataclass
class Model:
    """All that is so. `happened` counts what was acknowledged."""

    now: Databases = field(default_factory=Databases)
    lives: dict[str, int] = field(default_factory=dict[str, int])
    destroyed: list[Life] = field(default_factory=list[Life])
    lost: set[str] = field(default_factory=set[str])
    """People of whom a key was lost with a keyring: nothing more is told of them, but for what must never be."""
    vague: set[str] = field(default_factory=set[str])
    """People of whom privacy has lost a wish that another database has lost as well: the topics, as long as they are
    kept, bring it back in any order. They are not asked to do anything more either."""
    unsure: set[str] = field(default_factory=set[str])
    """Orders that orders and billing remember differently since one of them was restored: their state is not told."""
    touched: dict[str, int] = field(default_factory=dict[str, int])
    wishes: list[tuple[str, Request]] = field(default_factory=list[tuple[str, Request]])
    """All that ever were, with their ids."""
    happened: int = 0

    # --- Keys --------------------------------------------------------------------------------------------

    def life(self, person: str) -> Life:
        """The present one."""
        return Life(person, self.lives.setdefault(person, 1))

    def _mint(self, kind: str, life: Life, of: str = "") -> Key:
        """The key that is there and open, or another one."""
        turn = 0
        while (key := Key(kind, life, of, turn)) in self.now.keyring.closed:
            turn += 1
        self.now.keyring.keys.add(key)
        return key

    # --- What is acknowledged ----------------------------------------------------------------------------

    def sign_up(self, person: str, name: str) -> None:
        """There is an account."""
        life = self.life(person)
        self._happens()
        self._mint("correspondence", life)
        self.now.identity[life] = Account(life, name, self._mint("account", life))

    def close(self, person: str) -> None:
        """Until its owner comes back."""
        self._happens()
        self._mint("correspondence", self.life(person))
        self.now.identity[self.life(person)].closed = True

    def come_back(self, person: str) -> None:
        """By signing in."""
        self._happens()
        self._mint("correspondence", self.life(person))
        self.now.identity[self.life(person)].closed = False

    def buy(self, person: str, order: str, name: str) -> None:
        """There is an order, and money is owed."""
        life = self.life(person)
        self._happens(order)
        self._mint("correspondence", life)
        key = self._mint("order", life, order)
        self.now.orders[order] = Order(life, name, key)
        self.now.billing.owed[order] = Row(life, name, key)

    def pay(self, order: str, invoice: str) -> None:
        """The money is there. Of whoever is on hold the invoice waits."""
        self._happens(order)
        owed = self.now.billing.owed[order]
        self.now.orders[order].state = "paid"
        made = Invoice(owed.life, None, None, order=order, waits=owed.key in self.now.keyring.closed)
        self.now.billing.invoices[invoice] = made
        if not made.waits:
            self._complete(made)

    def _complete(self, invoice: Invoice) -> None:
        owed = self.now.billing.owed[invoice.order]
        invoice.waits = False
        if owed.life is not None:
            invoice.name, invoice.key = owed.name, self._mint("accounting", owed.life)

    def cancel(self, order: str) -> None:
        """Nothing is owed any more."""
        self._happens(order)
        self.now.orders[order].state = "cancelled"

    def fulfil(self, order: str) -> None:
        """The goods have left."""
        self._happens(order)
        self.now.orders[order].state = "fulfilled"

    def ask(self, person: str, request: str) -> None:
        """What is asked lies under a key of its own."""
        self._happens()
        self._mint("request", self.life(person), request)
        self._mint("correspondence", self.life(person))

    def complete(self, person: str, request: str, right: str, value: str = "") -> None:
        """A right was used, and everybody has done their part."""
        life = self.life(person)
        self._happens()
        wish = Request(life, right, self.happened, Key("request", life, request), value)
        self.now.privacy[request] = wish
        self.wishes.append((request, wish))
        for service in ("keyring", *SERVICES):
            self._grant(service, wish)
        if right == "erasure":
            self.destroyed.append(life)
            self.lives[person] += 1

    def _happens(self, order: str = "") -> None:
        self.happened += 1
        if order:
            self.touched[order] = self.happened

    # --- What a right does -------------------------------------------------------------------------------

    def _grant(self, service: str, wish: Request) -> None:
        """One service's part. It may be done again."""
        match wish.right:
            case "erasure":
                self._erase(service, wish.life)
            case "rectification":
                self._correct(service, wish)
            case "restriction":
                self._hold(service, wish.life)
            case "restriction-lifting":
                self._release(service, wish.life)
            case _:
                pass

    def _erase(self, service: str, life: Life) -> None:
        now = self.now
        match service:
            case "keyring":
                gone = {one for one in now.keyring.keys if one.life == life and one.kind not in KEPT_BY_LAW}
                now.keyring.keys -= gone
                now.keyring.closed -= gone
            case "identity":
                now.identity.pop(life, None)
            case "orders":
                for order in _of(life, now.orders):
                    order.life = order.name = order.key = None
                    if order.state == "awaiting_payment":
                        order.state = "cancelled"
            case "billing":
                for row in _of(life, now.billing.owed):
                    row.life = row.name = row.key = None
                for invoice in _of(life, now.billing.invoices):
                    invoice.waits = False
            case _:
                pass
        if service in SERVICES:
            now.holds[service].discard(life)

    def _correct(self, service: str, wish: Request) -> None:
        """An invoice is not rewritten; the correction is noted beside it."""
        if wish.key not in self.now.keyring.keys:
            return
        rows: Mapping[str, Mapping[Any, Row]] = {
            "identity": self.now.identity,
            "orders": self.now.orders,
            "billing": self.now.billing.owed | self.now.billing.invoices,
        }
        for row in _of(wish.life, rows.get(service, {})):
            if row.name is not None:
                row.name = wish.value

    def _hold(self, service: str, life: Life) -> None:
        if service == "keyring":
            held = {one for one in self.now.keyring.keys if one.life == life and one.kind != "request"}
            self.now.keyring.closed |= held
        else:
            self.now.holds[service].add(life)

    def _release(self, service: str, life: Life) -> None:
        keyring = self.now.keyring
        if service == "keyring":
            keyring.closed = {one for one in keyring.closed if one.life != life}
            return
        self.now.holds[service].discard(life)
        if service == "billing":
            for invoice in _of(life, self.now.billing.invoices):
                if invoice.waits:
                    self._complete(invoice)

    # --- Backups -----------------------------------------------------------------------------------------

    def save(self) -> Backup:
        """Every database as it is."""
        return Backup(deepcopy(self.now), self.happened)

    def restore(self, backup: Backup, names: Collection[str], erasing: Collection[str] = ()) -> None:
        """These databases are as they were; then what was asked since is asked again. `erasing` are people whose
        erasure is under way."""
        over = {*self.destroyed, *map(self.life, erasing)}
        before = self.now.keyring.keys
        saved = deepcopy(backup.databases)
        for name in names:
            setattr(self.now, name, getattr(saved, name))
            if name in SERVICES:
                self.now.holds[name] = saved.holds[name]
        if {"orders", "billing"} & set(names):
            self.unsure |= {order for order, at in self.touched.items() if at > backup.happened}
        if {"privacy", "keyring"} <= set(names) or set(names) & (set(SERVICES) - {"privacy"}):
            self.vague |= {
                wish.life.person
                for request, wish in self.wishes
                if wish.ended > backup.happened and request not in self.now.privacy and wish.right in _WISHES
            }
        if "billing" in names:
            self._forget_corrections(backup, over)
        known = [wish for wish in self.now.privacy.values() if wish.life not in over]
        wishes = sorted(known, key=lambda wish: wish.ended)
        for service in (name for name in ("keyring", *SERVICES) if name in names):
            for wish in wishes:
                self._grant(service, wish)
        for service in ("keyring", *SERVICES):
            for life in self.destroyed:
                self._erase(service, life)
        if "privacy" in names:
            self.now.holds["privacy"] = {key.life for key in self.now.keyring.closed} - set(self.destroyed)
        self.lost |= {key.life.person for key in before - self.now.keyring.keys}

    def _forget_corrections(self, backup: Backup, over: Collection[Life]) -> None:
        """Of what the law keeps of the erased: the values of a correction went with them, and are not noted again."""
        since = {
            wish.life
            for _, wish in self.wishes
            if wish.right == "rectification" and wish.ended > backup.happened and wish.life in over
        }
        for invoice in self.now.billing.invoices.values():
            if invoice.life in since and invoice.name is not None:
                invoice.name = ANYTHING

    # --- What can be read --------------------------------------------------------------------------------

    def account(self, life: Life) -> str | None:
        """The name it says, to its owner; None while it is on hold."""
        return self._read(self.now.identity.get(life))

    def order(self, order: str) -> tuple[str, str | None] | str:
        """The state, and the name of the contact, as staff see it."""
        row = self.now.orders.get(order)
        if row is None:
            return ABSENT
        name = self._read(row)
        return name if name == UNREADABLE else (ANYTHING if order in self.unsure else row.state, name)

    def invoice(self, invoice: str) -> str | None:
        """The name of whom it is for, as it was corrected last."""
        return self._read(self.now.billing.invoices.get(invoice))

    def shows_hold(self, row: Row) -> bool | str:
        """Whether it says that it is on hold."""
        return ANYTHING if row.life and row.life.person in self.vague else self._is_on_hold(row)

    def _is_on_hold(self, row: Row) -> bool:
        return row.key in self.now.keyring.closed or (isinstance(row, Invoice) and row.waits)

    def _read(self, row: Row | None) -> str | None:
        if row is None:
            return ABSENT
        if row.key is not None and row.key not in self.now.keyring.keys:
            return UNREADABLE
        if row.life and row.life.person in self.vague:
            return ANYTHING
        return None if row.key is None or self._is_on_hold(row) else row.name

    def orders_of(self, life: Life) -> list[str]:
        """What its owner sees listed."""
        return [order for order, row in self.now.orders.items() if row.life == life]

    def invoices_of(self, life: Life) -> list[str]:
        """What its owner sees listed, and after an erasure nobody but staff."""
        return [one for one, row in self.now.billing.invoices.items() if row.life == life]

    def requests_of(self, life: Life) -> list[str]:
        """What its owner sees listed."""
        return [request for request, row in self.now.privacy.items() if row.life == life]

    def may_be_under_way(self, life: Life) -> bool:
        """Whether goods are still to leave, or nobody knows: then an erasure is decided by the officer."""
        return any(
            self.now.orders[order].state == "paid" or order in self.unsure for order in self.orders_of(life)
        )


_WISHES = frozenset({"rectification", "restriction", "restriction-lifting"})


def _of(life: Life, rows: Mapping[Any, Any]) -> list[Any]:
    return [row for row in rows.values() if row.life == life]
