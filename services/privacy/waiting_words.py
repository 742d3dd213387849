"""Whom a request waits for, in words for whoever runs the platform or answers for a store."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from babel.dates import format_datetime, format_timedelta

from libs.common.events.privacy import Verb
from services.privacy.domain.waiting import OTHER_WORDS, For, Waits
from services.privacy.waiting_schemas import WaitingDeadline, WaitingPart
from services.privacy.wording import day
from services.privacy.words import Language, Words, said

TASKS: Words = {
    Verb.RECOGNISE: {"en": "recognise the order", "fr": "reconnaître la commande"},
    Verb.PREVIEW: {"en": "count what it holds", "fr": "compter ce qu’il détient"},
    Verb.PREPARE: {"en": "tell others before anything goes", "fr": "prévenir avant toute destruction"},
    Verb.REFER: {
        "en": "say by what others know the person",
        "fr": "dire sous quels noms d’autres la connaissent",
    },
    Verb.EXPORT: {"en": "export", "fr": "exporter"},
    Verb.RECTIFY: {"en": "correct", "fr": "rectifier"},
    Verb.ERASE: {"en": "erase", "fr": "effacer"},
    Verb.VERIFY_ERASED: {"en": "read again what was erased", "fr": "relire ce qui a été effacé"},
    Verb.RESTRICT: {"en": "restrict", "fr": "limiter"},
    Verb.LIFT_RESTRICTION: {"en": "lift the restriction", "fr": "lever la limitation"},
    Verb.OBJECT: {"en": "end the use", "fr": "cesser l’usage"},
}
ERRORS: Words = {
    OTHER_WORDS: {"en": "said in words of its own", "fr": "dite dans ses propres termes"},
    "incomplete": {"en": "parts of the export are missing", "fr": "il manque des parties de l’export"},
    "left-over": {"en": "something is left", "fr": "il reste des données"},
    "live-keys": {"en": "keys are left", "fr": "il reste des clés"},
}
_SENTENCES: Words = {
    For.PERSON: {
        "en": "It waits for its person: to show that it is theirs, or to answer what they were asked.",
        "fr": "Elle attend la personne : qu’elle montre que la demande est la sienne, ou réponde à une question.",
    },
    For.DECISION: {
        "en": "It waits for a decision of whoever answers for the store.",
        "fr": "Elle attend la décision de qui répond pour la boutique.",
    },
    For.PARTICIPANTS: {"en": "It waits for {who}.", "fr": "Elle attend {who}."},
    For.DAY: {
        "en": "It waits for {begins_at}, the moment its person was told of.",
        "fr": "Elle attend le {begins_at}, moment annoncé à la personne.",
    },
    For.WORKER: {
        "en": "Everybody has answered: the privacy worker takes the next step.",
        "fr": "Chacun a répondu : le processus de la vie privée fait le pas suivant.",
    },
    For.NOBODY: {"en": "It is over.", "fr": "Elle est terminée."},
    Waits.ANSWER: {
        "en": "Waiting for {participant} ({task}) since {since}, try {tries}, {again}.",
        "fr": "{participant} ({task}) est attendu depuis {since}, essai {tries}, {again}.",
    },
    Waits.COMPLETION: {
        "en": "{participant} ({task}) has had it since {since} and must still say that it is done.",
        "fr": "{participant} ({task}) l’a reçue depuis {since} et doit encore dire que c’est fait.",
    },
    Waits.TURN: {
        "en": "{participant} ({task}) comes after {after}.",
        "fr": "{participant} ({task}) vient après {after}.",
    },
    Waits.TIME: {
        "en": "{participant} ({task}) is asked {next_try}.",
        "fr": "{participant} ({task}) est sollicité {next_try}.",
    },
    "error": {
        "en": " Its last answer, {at}, was a failure: {error}.",
        "fr": " Sa dernière réponse, {at}, fut un échec : {error}.",
    },
    "again": {"en": "next try {next_try}", "fr": "le prochain {next_try}"},
    "never-again": {"en": "which is repeated only by hand", "fr": "à répéter seulement à la main"},
    "now": {"en": "now", "fr": "maintenant"},
    "unknown": {"en": "an unknown time", "fr": "un moment inconnu"},
    "others": {"en": "others", "fr": "d’autres"},
    "at": {"en": "at {}", "fr": "à {}"},
    "no-day": {"en": "The law’s period has not begun.", "fr": "Le délai légal n’a pas commencé."},
    "stopped": {
        "en": "The clock stands still since {since}, for an answer of the person.",
        "fr": "Le délai est suspendu depuis {since}, dans l’attente d’une réponse de la personne.",
    },
    "left": {
        "en": "The last day is {day}: {left} are left.",
        "fr": "Le dernier jour est le {day} : il reste {left}.",
    },
    "over": {
        "en": "The last day was {day}: it is {left} late.",
        "fr": "Le dernier jour était le {day} : le retard est de {left}.",
    },
}


class Wording:
    """Words in one language, with the times of one zone, at one moment."""

    def __init__(self, language: Language, zone: ZoneInfo, now: datetime) -> None:
        self._language = language
        self._zone = zone
        self._now = now

    def _said(self, word: str, **values: object) -> str:
        return _SENTENCES[word][self._language].format(**values)

    def moment(self, at: datetime | None) -> str:
        """`14:02` of today, and with its day otherwise."""
        if at is None:
            return self._said("unknown")
        local = at.astimezone(self._zone)
        today = local.date() == self._now.astimezone(self._zone).date()
        return format_datetime(local, "HH:mm" if today else "d MMM y HH:mm", locale=self._language)

    def _at(self, at: datetime | None) -> str:
        if at is not None and at <= self._now:
            return self._said("now")
        return _SENTENCES["at"][self._language].format(self.moment(at))

    def _again(self, at: datetime | None) -> str:
        return self._said("never-again") if at is None else self._said("again", next_try=self._at(at))

    def request(self, waits_for: For, parts: Sequence[WaitingPart], begins_at: datetime | None) -> str:
        """Whom it waits for."""
        asked = sorted({part.participant for part in parts if part.waits is not Waits.TURN})
        return self._said(
            waits_for, who=", ".join(asked) or self._said("others"), begins_at=self.moment(begins_at)
        )

    def part(self, part: WaitingPart) -> str:
        """What one participant's part waits for, and what its last error was."""
        words = self._said(
            part.waits,
            participant=part.participant,
            task=said(TASKS, part.task, self._language),
            since=self.moment(part.since),
            tries=part.tries,
            next_try=self._at(part.next_try_at),
            again=self._again(part.next_try_at),
            after=", ".join(part.after) or self._said("others"),
        )
        if part.error is None:
            return words
        error = said(ERRORS, part.error, self._language)
        return words + self._said("error", at=self.moment(part.error_at), error=error)

    def deadline(self, deadline: WaitingDeadline) -> str:
        """How far the law's last day is."""
        if deadline.stopped_since is not None:
            return self._said("stopped", since=self.moment(deadline.stopped_since))
        if deadline.due_on is None or deadline.seconds_left is None:
            return self._said("no-day")
        left = timedelta(seconds=abs(deadline.seconds_left))
        return self._said(
            "over" if deadline.seconds_left < 0 else "left",
            day=day(deadline.due_on, self._language),
            left=format_timedelta(left, threshold=2, locale=self._language),
        )
