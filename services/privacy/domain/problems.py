"""What a caller of the privacy service can meet."""

from libs.common.errors import BadRequest, Conflict, Forbidden, Gone, NotFound, Unprocessable


class AddressNotOfAccount(Unprocessable):
    """422: the answer would go to somebody else."""

    slug = "address-not-of-account"
    title = "This is not the e-mail address of your account"
    detail = "Give the address you signed up with; the answer is sent there."


class RightIncomplete(Unprocessable):
    """422: the right needs to know more, or less."""

    slug = "right-incomplete"
    title = "This right cannot be used like this"


class ReceivedInTheFuture(Unprocessable):
    """422: what is entered has reached the store already."""

    slug = "received-in-the-future"
    title = "This day has not come yet where the store is"
    detail = "Give the day on which the letter, call or visit reached the store, or none for today."


class ErasureUnderWay(Conflict):
    """409: there is nothing left to export."""

    slug = "erasure-under-way"
    title = "Your data is being erased"
    detail = "An erasure you asked for has not ended yet."


class TooManySubjects(Conflict):
    """409: a person has only so many subjects at one store."""

    slug = "too-many-subjects"
    title = "This person has too many addresses already"


class SubjectUnknown(Unprocessable):
    """422: nobody of this name has ever been met at this store."""

    slug = "subject-unknown"
    title = "Nobody is known by this address or id"
    detail = "Check both; an id is one of this store, and an address one that somebody has used here."


class SameSubject(Unprocessable):
    """422: two names for one subject."""

    slug = "same-subject"
    title = "These two are the same subject already"
    detail = "Name two different ones."


class NotDecidable(Conflict):
    """409: the request is not, or no longer, waiting for a decision."""

    slug = "not-decidable"
    title = "This request is not waiting for a decision"


class GroundDoesNotFit(Unprocessable):
    """422: the ground answers other rights, or another law."""

    slug = "ground-does-not-fit"
    title = "The law does not let this right be refused on this ground"


class NothingAsked(Conflict):
    """409: no question waits for an answer."""

    slug = "nothing-asked"
    title = "Nothing is asked of you"
    detail = "Your answer has arrived already, or the request has ended since."


class NoPreview(Conflict):
    """409: only a request that waits for its decision is counted for, and looked at, before."""

    slug = "no-preview"
    title = "This request is not waiting for a decision"
    detail = "A preview is asked for while a request waits for its decision."


class NotRestricted(Conflict):
    """409: what is lifted is a restriction that was carried out."""

    slug = "not-restricted"
    title = "This is no restriction that can be lifted"
    detail = "Name a request for restriction that has been completed."


class StatusGone(NotFound):
    """404, the same for a link that never was, for one whose person was erased, and for one that nobody followed."""

    slug = "request-link-not-valid"
    title = "This link is not valid any more"
    detail = "Ask again, and a new one comes by mail."


class NotYoursToDecide(Forbidden):
    """403: the store answers its customers; the platform does when it is silent or gone."""

    slug = "not-yours-to-decide"
    title = "This request is the store's to answer"


class DocumentNotWanted(Conflict):
    """409: nobody has to show anything for this request, at least not by a document."""

    slug = "document-not-wanted"
    title = "No document is needed for this request"


class TooManyDocuments(Conflict):
    """409: the ones that are there must be looked at first."""

    slug = "too-many-documents"
    title = "Enough documents are waiting to be looked at"
    detail = "The store looks at them first."


class DocumentNotAccepted(Unprocessable):
    """422: what was sent is no document that can be looked at."""

    slug = "document-not-accepted"
    title = "Send a PDF, a JPEG or a PNG"


class AlreadyChecked(Conflict):
    """409: somebody has looked at the document and said something else; it is destroyed."""

    slug = "already-checked"
    title = "This document was checked already"
    detail = "It was destroyed then. Ask for another one if it is needed."


class PeriodNotAllowed(Unprocessable):
    """422: the law leaves less choice. `periods` says how much, for each."""

    slug = "period-not-allowed"
    title = "The law does not allow this period"
    detail = "See periods for the least and the most of each."


class HoldNotAllowed(Unprocessable):
    """422: a hold ends, and not in the past."""

    slug = "hold-not-allowed"
    title = "A hold cannot last until this day"
    detail = "Give a day from today to five years from now; it can be placed anew by then."


class PartNotOpen(Conflict):
    """409: nothing is waited for there: it is answered, its turn has not come, or its phase is over."""

    slug = "part-not-open"
    title = "Nothing is waited for from this participant now"
    detail = "Read the request again: its parts say who has answered and who is asked."


class KeyringAnswersItself(Conflict):
    """409: whether keys are destroyed is for the keyring alone to say."""

    slug = "keyring-answers-itself"
    title = "Nobody can answer for the keyring"
    detail = "Have it asked again, and see that it runs."


class SettlementDoesNotFit(Unprocessable):
    """422: what is said of the part does not follow from the ground. `grounds` names those from which it can."""

    slug = "settlement-does-not-fit"
    title = "This cannot be said of the part on this ground"
    detail = "See grounds for those that fit."


class NotYoursToSettle(Forbidden):
    """403: the platform answers for its own services."""

    slug = "not-yours-to-settle"
    title = "The platform answers for this service"
    detail = "Ask the platform's operators; they see that it is stuck."


class ParticipantRequired(Conflict):
    """409: a request is not complete without this participant, whoever else there is."""

    slug = "participant-required"
    title = "This participant belongs to the platform and cannot leave"


class SuccessorUnknown(Unprocessable):
    """422: whoever takes over must be able to answer."""

    slug = "successor-unknown"
    title = "This participant cannot take over"
    detail = "Name another participant that has announced itself."


class DepartedAlready(Conflict):
    """409: it left before, for another reason or to another successor."""

    slug = "departed-already"
    title = "This participant has left already"
    detail = "Read its departure; let it join again first if it is to leave otherwise."


class DownloadGone(NotFound):
    """404, the same for a link that never was, has expired, was used up, or whose person was erased."""


class NotInLog(NotFound):
    """404: the log has no such leaf, or published no head of this size. `reason` says which."""

    slug = "not-in-log"
    title = "The log has no such thing"
    detail = "Ask for the newest head, and for leaves and sizes up to it."


class LogCutShort(Gone):
    """410: the log lacks entries that its own signed heads count. Whoever keeps such a head can show that."""

    slug = "log-cut-short"
    title = "The log is shorter than it was"
    detail = "Keep the heads that you have: they show that entries are missing. Tell the store."


class NotCertified(NotFound):
    """404: the request has not ended, or it ended a moment ago. `due_at` says when its certificate is issued, if so."""

    slug = "not-certified"
    title = "There is no certificate yet"
    detail = "It is issued when the request has ended; after an erasure, once no key can be in any memory."


# --- Recipients outside ----------------------------------------------------------------------------------


class AddressNotAllowed(Unprocessable):
    """422: nothing is ever sent there."""

    slug = "address-not-allowed"
    title = "Nothing can be sent to this address"
    detail = "Give an https address without a user name, a password and a fragment."


class TooManyRecipients(Conflict):
    """409: a store has only so many."""

    slug = "too-many-recipients"
    title = "This store has too many recipients already"
    detail = "Disable those that get nothing any more."


class RecipientDisabled(Conflict):
    """409: nothing is sent to it any more."""

    slug = "recipient-disabled"
    title = "This recipient is disabled"
    detail = "Register it anew if it is to be told of requests again."


class RecipientNotTested(Conflict):
    """409: nothing about anybody goes to an address that never answered."""

    slug = "recipient-not-tested"
    title = "This recipient has not taken a test yet"
    detail = "Send it a test first; it is active as soon as it has taken one."


class DeliveryOver(Conflict):
    """409: there is nothing left to send."""

    slug = "delivery-over"
    title = "This is not sent any more"
    detail = "Its request has ended, its person was erased, or something later took its place."


class NotSigned(Forbidden):
    """403: whoever answers shows by a signature that they are the recipient."""

    slug = "not-signed"
    title = "This answer is not signed by its recipient"
    detail = "Sign id.timestamp.body with the secret of the recipient, within five minutes of now."


class AlreadyAnswered(Conflict):
    """409: the recipient has said something else before, or somebody has answered for it."""

    slug = "already-answered"
    title = "This was answered otherwise already"
    detail = "What was said first counts."


# --- OpenDSR ---------------------------------------------------------------------------------------------


class NotOpenDsr(BadRequest):
    """400: `error` says why in the form that OpenDSR has for it."""

    slug = "opendsr-refused"
    title = "This is no OpenDSR message that can be answered"
    detail = "See error.errors for each reason; discovery says what is supported."


class CallbackNotSigned(Forbidden):
    """403: nobody who is asked anything from here has signed it."""

    slug = "callback-not-signed"
    title = "This callback is not signed by a processor of ours"
    detail = "Sign the raw body with the key of the certificate that your discovery names."


class NotSetUpForOpenDsr(NotFound):
    """404: without a certificate nothing could be signed."""

    slug = "opendsr-not-set-up"
    title = "This platform does not speak OpenDSR"
    detail = "Its operator has set no certificate."
