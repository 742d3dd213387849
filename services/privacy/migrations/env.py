from libs.common.migrations import run
from libs.common.tables import METADATA
from services.privacy.evidence.models import Base

run(METADATA, Base.metadata)
