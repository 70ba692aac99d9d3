"""Captioners: run time, network, decoding, preprocessing, training and evaluation."""

import sys

# Where OpenVINO's converter finds this package, it reports each use of itself to its makers, from processes
# that it forks off. Nobody who captions photos asked for that: it finds nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
