"""The arguments that measurements of several systems and seeds have in common."""

import argparse


def parser_of(description, seeds, systems=None):
    """A parser of ``--seeds``, ``--table`` and, where there are some, ``--systems``.

    Args:
        description: of the command, its lines as they are.
        seeds: by default.
        systems: names to choose from; all by default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if systems is not None:
        parser.add_argument("--systems", nargs="+", choices=list(systems), default=list(systems), metavar="SYSTEM")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--table", action="store_true", help="only print what is there")
    return parser
