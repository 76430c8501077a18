"""Entry point for the Flex Template launcher, which runs a file and cannot run a module."""

import sys

from scenebeam.cloud.template import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
