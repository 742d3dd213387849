from libs.common.migrations import run
from services.privacy.destructions.models import DestructionsBase

run(DestructionsBase.metadata)
