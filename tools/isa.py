"""Prints the CPU features that matter and the active instruction set; ``--list`` prints the available sets only."""

from __future__ import annotations

import sys

from tengri_fast import _native


def main() -> int:
    """Command line."""
    available = list(_native.isa_available())
    if "--list" in sys.argv[1:]:
        print(" ".join(available))
        return 0
    features = _native.cpu_features()
    print(f"CPU features: {features if isinstance(features, str) else ' '.join(features)}")
    print(f"instruction sets: {' '.join(available)}; active: {_native.isa_active()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
