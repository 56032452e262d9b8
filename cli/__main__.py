"""`usance`: the buyer's, the seller's and the operator's command."""

import sys


def main() -> None:
    from cli.main import execute

    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    main()
