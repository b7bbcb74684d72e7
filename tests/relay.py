"""Live in a process of its own: numbered frames from a source to raw pictures on stdout, through a real engine's work.

python -m tests.relay SOURCE BUNDLE: the figures of the whole run go to stderr at the end, as JSON.
"""

import json
import sys

from jokr_rt.bundle import Bundle, open_bundle
from jokr_rt.engines import Engine, load_engine
from jokr_rt.live import Controls, LiveOptions, run_live
from jokr_rt.live.controls import signals
from tests.passing import PassingEngine


def load() -> tuple[Bundle, Engine]:
    bundle = open_bundle(sys.argv[2])
    return bundle, PassingEngine(load_engine("auto", bundle, "fp32"))


if __name__ == "__main__":
    controls = Controls()
    options = LiveOptions(sys.argv[1], ("-",), smooth=0)
    with signals(controls):
        (figures,) = run_live(load, options, controls=controls)
    print(json.dumps(figures.to_json()), file=sys.stderr)
