"""What a format without a bank says to a row that asks for a channel's adapter."""

from collections.abc import Sequence

from headrace.errors import BadInput


def refuse_adapters(backend: str, adapters: Sequence[str | None] | None) -> None:
    """Check that no row asks for an adapter.

    Raises:
        BadInput: one does.
    """
    wanted = next((one for one in adapters or () if one is not None), None)
    if wanted is not None:
        raise BadInput(
            f"backend {backend!r} holds no channel adapters",
            value=wanted,
            next_step='Set export.backend = "openvino" and export the version again',
        )
