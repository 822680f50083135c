"""Who may ask, how much, what is kept of what they say, and which files are trusted."""

from typing import Annotated, Literal

from pydantic import Field

from headrace.config.table import Table

ChannelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Personal = Literal["off", "mask", "replace", "hash", "drop"]
"""What becomes of personal data that is found in a text."""


class AccessTable(Table):
    hosts: tuple[str, ...] = ()
    """Names by which clients call the server, beside its address and localhost; a request for another is refused."""
    certificate: str = ""
    """File of the TLS certificate with its chain, in PEM; empty: plain HTTP."""
    private_key: str = ""
    """File of the certificate's private key, in PEM."""
    requests_per_s: Annotated[float, Field(ge=0, le=1e9)] = 0
    """Requests that a key may make in a second, over time; 0: no limit. A key can have a limit of its own."""
    burst_s: Annotated[float, Field(gt=0, le=1e6)] = 10
    """Seconds of that rate that may come at once."""
    rows_per_day: Annotated[int, Field(ge=0)] = 0
    """Rows that a key may have answered in a day (UTC); 0: no limit. A key can have a limit of its own."""


class PrivacyTable(Table):
    personal: Personal = "off"
    """What becomes of personal data in texts, before anything is written; a channel can say otherwise."""
    kinds: tuple[str, ...] = ()
    """Kinds of personal data that are looked for; none: all that have a pattern."""
    names_model: str = ""
    """Version of a token-classification task that finds people and places, such as "entities/3"; empty: none does."""
    keep_mapping: bool = False
    """Whether what was replaced can be found again: encrypted, with a key for each person it is about (replace)."""
    keep_days: Annotated[int, Field(ge=0)] = 0
    """Days after which predictions and feedback are deleted for good; 0: as serve.log_max_bytes says."""


class ChannelTable(Table):
    personal: Personal | None = None
    """As privacy.personal, for this channel."""
    log_inputs: Literal["text", "hash"] | None = None
    """As serve.log_inputs, for this channel."""
    keep_days: Annotated[int, Field(ge=1)] | None = None
    """As privacy.keep_days, for this channel."""
    requests_per_s: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Requests of the channel in a second, over time, whoever makes them."""
    rows_per_day: Annotated[int, Field(ge=1)] | None = None
    """Rows of the channel that are answered in a day (UTC), whoever asks."""


class SignTable(Table):
    policy: Literal["off", "when-signed", "require"] = "when-signed"
    """Which artifacts are loaded: all; those whose signature, if they have one, fits; only those with one that fits."""
    private_key: str = ""
    """File of the private key that signs what is exported, in PEM; empty: nothing is signed."""
    public_keys: tuple[str, ...] = ()
    """Files of the public keys whose signatures count."""


class JobsTable(Table):
    network: Literal["denied", "allowed"] = "denied"
    """Whether jobs may reach other machines; those whose store, artifacts or tracker are on one always may."""
