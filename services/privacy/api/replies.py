"""What a person does with the link that is in every mail about their request."""

from fastapi import APIRouter, Request

from libs.common.http import OpenVault, refusals
from services.privacy.api.means import Now
from services.privacy.desk_schemas import Explanation, Language, NewAnswer, StatusToken
from services.privacy.service import replying

router = APIRouter(tags=["privacy"])


@router.post("/status/answers", status_code=204, responses=refusals(404, 409))
async def answer(request: Request, wanted: NewAnswer, vault: OpenVault, at: Now) -> None:
    """Answer what you were asked. The time to answer your request goes on from then."""
    database = request.app.state.database
    await replying.answer(database, vault, token=wanted.token, text=wanted.text, now=at)


@router.post("/status/explanation", response_model=Explanation, responses=refusals(404))
async def read_explanation(request: Request, wanted: StatusToken, language: Language = "en") -> Explanation:
    """The answer to your request for an explanation, once it is there."""
    return await replying.explained(request.app.state.database, token=wanted.token, language=language)
