"""What nobody else may see, on its way to the market. There is no way back."""

from cli.wishes import Confidential
from usance.v1 import types_pb2


def confidential_to(value: Confidential) -> types_pb2.Confidential | None:
    """Nothing where there is nothing: the field stays unset."""
    if not value:
        return None
    registry = None
    if value.registry_user:
        registry = types_pb2.RegistryCredential(
            username=value.registry_user, password=value.registry_password
        )
    return types_pb2.Confidential(
        secrets=[types_pb2.Secret(name=name, value=content) for name, content in value.secrets],
        registry=registry,
    )
