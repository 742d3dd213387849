"""What fixed words mean, in the languages of persons: rights, grounds, obligations, and what is kept."""

from collections.abc import Mapping
from typing import Literal

from libs.common.personal.vocabulary import Category, Clock, Purpose, Retention, Source
from services.privacy.domain.decisions import Extension, Ground
from services.privacy.domain.rights import RightName

Language = Literal["en", "fr"]
Words = Mapping[str, Mapping[str, str]]


def said(words: Words, word: str, language: str) -> str:
    """What a word means; the word itself where a participant of somebody else's made it up."""
    return words.get(word, {}).get(language, word)


RIGHTS: Words = {
    RightName.ACCESS: {"en": "a copy of your data", "fr": "une copie de vos données"},
    RightName.PORTABILITY: {
        "en": "your data in a form that another service reads",
        "fr": "vos données sous une forme qu’un autre service sait lire",
    },
    RightName.RECTIFICATION: {"en": "the correction of your data", "fr": "la rectification de vos données"},
    RightName.ERASURE: {"en": "the erasure of your data", "fr": "l’effacement de vos données"},
    RightName.RESTRICTION: {
        "en": "the restriction of what is done with your data",
        "fr": "la limitation du traitement de vos données",
    },
    RightName.LIFTING: {
        "en": "the lifting of the restriction on your data",
        "fr": "la levée de la limitation du traitement de vos données",
    },
    RightName.OBJECTION: {
        "en": "an objection to a use of your data",
        "fr": "une opposition à un usage de vos données",
    },
    RightName.WITHDRAWAL: {"en": "the withdrawal of your consent", "fr": "le retrait de votre consentement"},
    RightName.EXPLANATION: {
        "en": "an explanation of what is done with your data",
        "fr": "une explication de ce qui est fait de vos données",
    },
    RightName.KNOW: {
        "en": "your right to know (California)",
        "fr": "votre droit de savoir (« right to know », Californie)",
    },
    RightName.DELETE: {
        "en": "your right to delete (California)",
        "fr": "votre droit à la suppression (« right to delete », Californie)",
    },
    RightName.CORRECT: {
        "en": "your right to correct (California)",
        "fr": "votre droit à la correction (« right to correct », Californie)",
    },
    RightName.LIMIT: {
        "en": "your right to limit the use of your data (California)",
        "fr": "votre droit de limiter l’usage de vos données (« right to limit », Californie)",
    },
    RightName.OPT_OUT: {
        "en": "your right to opt out of the sale and sharing of your data (California)",
        "fr": "votre droit de refuser la vente et le partage de vos données (« right to opt-out », Californie)",
    },
}
"""After "your request for", in a mail."""

GROUNDS: Words = {
    Ground.UNFOUNDED: {
        "en": "the request is manifestly unfounded",
        "fr": "la demande est manifestement infondée",
    },
    Ground.EXCESSIVE: {
        "en": "the request is excessive, in particular because it is repeated",
        "fr": "la demande est excessive, notamment par son caractère répétitif",
    },
    Ground.NOT_IDENTIFIED: {
        "en": "we could not establish that the request is yours",
        "fr": "nous n’avons pas pu établir que la demande vient de vous",
    },
    Ground.RIGHTS_OF_OTHERS: {
        "en": "it would harm the rights and freedoms of others",
        "fr": "y répondre porterait atteinte aux droits et libertés d’autrui",
    },
    Ground.LEGAL_OBLIGATION: {
        "en": "the law obliges us to keep the data",
        "fr": "la loi nous oblige à conserver les données",
    },
    Ground.LEGAL_CLAIMS: {
        "en": "the data is needed to establish, exercise or defend legal claims",
        "fr": "les données sont nécessaires à la constatation, à l’exercice ou à la défense de droits en justice",
    },
    Ground.FREE_EXPRESSION: {
        "en": "the data is needed for the freedom of expression and information",
        "fr": "les données sont nécessaires à la liberté d’expression et d’information",
    },
    Ground.DATA_IS_ACCURATE: {
        "en": "the data is accurate as it is",
        "fr": "les données sont exactes telles quelles",
    },
    Ground.COMPELLING_GROUNDS: {
        "en": "there are compelling legitimate grounds for this use, which override your interests",
        "fr": "cet usage répond à des motifs légitimes et impérieux, qui prévalent sur vos intérêts",
    },
    Ground.CONDITIONS_NOT_MET: {
        "en": "the conditions that the law sets for this right are not met",
        "fr": "les conditions que la loi pose à ce droit ne sont pas réunies",
    },
}
EXTENSIONS: Words = {
    Extension.COMPLEXITY: {"en": "it is complex", "fr": "elle est complexe"},
    Extension.NUMBER: {"en": "we received many requests", "fr": "nous avons reçu de nombreuses demandes"},
}
"""After "because"."""

OBLIGATIONS: Words = {
    "order-under-way": {
        "en": "An order is paid and not delivered yet: erased now, nobody could send it or refund it.",
        "fr": "Une commande est payée et pas encore livrée : effacée maintenant, elle ne pourrait être ni envoyée ni"
        " remboursée.",
    },
    "payment-due": {
        "en": "A payment is still due: whoever claims it needs the data until it is settled.",
        "fr": "Un paiement est encore dû : les données sont nécessaires à son recouvrement.",
    },
    "legal-hold": {
        "en": "Some of it is on legal hold: it would be kept until that ends, and everything else erased.",
        "fr": "Une partie est conservée pour un litige : elle le resterait jusqu’à son terme, le reste serait effacé.",
    },
    "owner-of-a-store": {
        "en": "The account owns a store, which would be left without an owner.",
        "fr": "Le compte est propriétaire d’une boutique, qui resterait sans propriétaire.",
    },
}
_ANOTHER_OBLIGATION = {
    "en": "A service names this reason in words of its own; whoever runs it can say more.",
    "fr": "Un service donne cette raison dans ses propres termes ; qui l’exploite peut en dire plus.",
}


def obligation(word: str, language: str) -> str:
    """Why somebody should look; a sixth participant may name reasons that nobody here knows."""
    return OBLIGATIONS.get(word, _ANOTHER_OBLIGATION)[language]


CLOCKS: Words = {
    Clock.ACCOUNT_CLOSED: {"en": "the account has ended", "fr": "le compte a pris fin"},
    Clock.ORDER_CONFIRMED: {
        "en": "the order was confirmed and nobody has paid it since",
        "fr": "la commande a été confirmée et personne ne l’a payée depuis",
    },
    Clock.ORDER_PAID: {
        "en": "the order was paid and has not been delivered since",
        "fr": "la commande a été payée et n’a pas été livrée depuis",
    },
    Clock.ORDER_FULFILLED: {"en": "the order was fulfilled", "fr": "la commande a été expédiée"},
    Clock.ORDER_REFUSED: {"en": "the order was refused", "fr": "la commande a été refusée"},
    Clock.ORDER_CANCELLED: {"en": "the order was cancelled", "fr": "la commande a été annulée"},
    Clock.INVOICE_ISSUED: {
        "en": "the end of the year in which the invoice was issued",
        "fr": "la fin de l’année où la facture a été émise",
    },
    Clock.MESSAGE_SETTLED: {"en": "the last message was settled", "fr": "le dernier message a été traité"},
    Clock.DESK_REPLACED: {
        "en": "the address of the privacy desk was replaced",
        "fr": "l’adresse du service chargé de la vie privée a été remplacée",
    },
    Clock.EXPORT_READY: {"en": "the export was ready", "fr": "l’export était prêt"},
    Clock.REQUEST_ENDED: {"en": "the request was answered", "fr": "la demande a reçu sa réponse"},
    Clock.DOCUMENT_RECEIVED: {"en": "the document was received", "fr": "le document a été reçu"},
}
"""After "from the day on which", in a policy."""

KEPT: Words = {
    Retention.ACCOUNT: {"en": "your account", "fr": "votre compte"},
    Retention.ORDER: {
        "en": "the names and addresses of your orders",
        "fr": "les noms et adresses de vos commandes",
    },
    Retention.CORRESPONDENCE: {"en": "our correspondence", "fr": "notre correspondance"},
    Retention.ACCOUNTING: {
        "en": "accounting records, invoices among them",
        "fr": "les pièces comptables, dont les factures",
    },
    Retention.REQUEST: {
        "en": "this request, as the proof that it was answered",
        "fr": "cette demande, comme preuve qu’il y a été répondu",
    },
}
CATEGORIES: Words = {
    Category.USERNAME: {"en": "user name", "fr": "nom d’utilisateur"},
    Category.CONTACT: {"en": "contact details", "fr": "coordonnées"},
    Category.ADDRESS: {"en": "address", "fr": "adresse"},
    Category.CITY: {"en": "city", "fr": "ville"},
    Category.COUNTRY: {"en": "country", "fr": "pays"},
    Category.POSTAL_CODE: {"en": "postal code", "fr": "code postal"},
    Category.STATE: {"en": "state or region", "fr": "région"},
    Category.STREET: {"en": "street", "fr": "rue"},
    Category.EMAIL: {"en": "e-mail address", "fr": "adresse e-mail"},
    Category.PHONE_NUMBER: {"en": "phone number", "fr": "numéro de téléphone"},
    Category.NAME: {"en": "name", "fr": "nom"},
    Category.LANGUAGE: {"en": "language", "fr": "langue"},
    Category.DATE_OF_BIRTH: {"en": "date of birth", "fr": "date de naissance"},
    Category.PURCHASE_HISTORY: {"en": "purchases", "fr": "achats"},
    Category.BROWSING_HISTORY: {"en": "visits", "fr": "visites"},
    Category.CONTENT: {"en": "what you wrote", "fr": "ce que vous avez écrit"},
}
PURPOSES: Words = {
    Purpose.MARKETING_MAIL: {"en": "marketing by e-mail", "fr": "la prospection par e-mail"},
    Purpose.ADVERTISING: {"en": "advertising", "fr": "la publicité"},
    Purpose.PERSONALISATION: {"en": "personalisation", "fr": "la personnalisation"},
    Purpose.ANALYTICS: {"en": "statistics", "fr": "les statistiques"},
    Purpose.FRAUD_DETECTION: {"en": "the detection of fraud", "fr": "la détection de fraudes"},
    Purpose.SUPPORT: {"en": "support", "fr": "l’assistance"},
    Purpose.SERVICE_MAIL: {"en": "mails about your account and orders", "fr": "les e-mails de service"},
    Purpose.FULFIL_ORDER: {"en": "the fulfilment of orders", "fr": "l’exécution des commandes"},
    Purpose.PROVIDE_ACCOUNT: {"en": "your account", "fr": "votre compte"},
    Purpose.AUTHENTICATION: {"en": "signing in", "fr": "la connexion"},
    Purpose.PAYMENT: {"en": "payment", "fr": "le paiement"},
    Purpose.SECURITY: {"en": "security", "fr": "la sécurité"},
    Purpose.ACCOUNTING: {"en": "accounting", "fr": "la comptabilité"},
    Purpose.RIGHTS_OF_THE_PERSON: {"en": "your rights", "fr": "vos droits"},
}
SOURCES: Words = {
    Source.PERSON: {"en": "You gave it to this store.", "fr": "Vous l’avez donnée à cette boutique."},
    Source.OBSERVED: {
        "en": "It was noted when you used this store.",
        "fr": "Elle a été notée quand vous avez utilisé cette boutique.",
    },
    Source.DERIVED: {
        "en": "It was computed from other data of yours.",
        "fr": "Elle a été calculée à partir d’autres données vous concernant.",
    },
}
RECIPIENTS: Words = {
    "carrier": {"en": "the carrier", "fr": "le transporteur"},
    "payment provider": {"en": "the payment provider", "fr": "le prestataire de paiement"},
    "mail provider": {"en": "the mail provider", "fr": "le prestataire d’e-mail"},
}
