"""`python -m tl_keras VERB --flags`."""

import sys

from tl_keras.cli import main

if __name__ == "__main__":
    sys.exit(main())
