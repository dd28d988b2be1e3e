"""The instruments inside an engine's saved state; the engine itself checks what the blocks hold."""

from __future__ import annotations

import struct

from tengri_fast.errors import ModelLoadingError

__all__ = ["read_entries"]

Entry = tuple[str, tuple[int, ...], bytes, bytes]
"""Name, five numbers (warm-up, warm until, last time, sequence, failures), feature block, session state."""


def read_entries(body: bytes, at: int, features_bytes: int, session_bytes: int) -> dict[str, Entry]:
    """The instruments from offset `at` on, by name.

    Raises
    ------
    ModelLoadingError
        If the bytes end early, go on after the last instrument, hold a name twice or one that is no text.
    """
    entries: dict[str, Entry] = {}
    try:
        (count,) = struct.unpack_from("<I", body, at)
        at += 4
        for _ in range(count):
            (length,) = struct.unpack_from("<I", body, at)
            name = body[at + 4 : at + 4 + length].decode()
            at += 4 + length
            numbers = struct.unpack_from("<QQQQQ", body, at)
            at += 40
            features = body[at : at + features_bytes]
            at += features_bytes
            session = body[at : at + session_bytes]
            at += session_bytes
            entries[name] = (name, numbers, features, session)
    except (struct.error, UnicodeDecodeError) as error:
        raise ModelLoadingError(f"saved engine state: truncated or malformed ({error})") from None
    if at != len(body) or len(entries) != count:
        raise ModelLoadingError(
            f"saved engine state: must hold {count} instruments in {at} bytes, held {len(entries)} in {len(body)}"
        )
    return entries
