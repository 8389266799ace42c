"""`python -m benchmarks.compare`: Riverrun, the NATS server below it and ejabberd under the same load, by turns.

A deployment and an ejabberd are started for it. The options are those of `riverrun bench compare`, which does the rest.
"""

import subprocess
import sys

from benchmarks.deployment import deployed
from benchmarks.ejabberd import NoEjabberd, ejabberd


def main(options: list[str]) -> int:
    """Compare; the exit status."""
    try:
        with ejabberd() as other, deployed() as deployment:
            command = [sys.executable, "-m", "runtime.cli", "bench", "compare", "--adapters", "riverrun,nats,xmpp"]
            where = ["--data-dir", str(deployment.data_dir), "--target", f"xmpp={other.url}"]
            return subprocess.run([*command, *where, "--pid", f"xmpp={other.pid}", *options], check=False).returncode
    except NoEjabberd as error:
        print(f"benchmarks.compare: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
