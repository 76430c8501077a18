"""What the Flex Template's launcher runs: a file, as it knows no modules."""

import sys

from scenebeam.cloud.template import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
