from libs.common.migrations import run
from services.privacy.keyring.models import KeyringBase

run(KeyringBase.metadata)
