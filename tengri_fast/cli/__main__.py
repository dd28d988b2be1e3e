"""``python -m tengri_fast.cli``: the ``tengri`` command where no script is installed."""

from __future__ import annotations

from tengri_fast.cli import main

if __name__ == "__main__":
    main(prog_name="tengri")
