"""Flows: the stages as Prefect flows, the recipes, and the command line."""

import os

# Read by the libraries when they are first imported, and inherited by every process that a run starts. None of them
# may phone home, and none may look for updates or weights on the network unless the user says so.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray Train's workers report on stdout through Ray; its own progress table would bury our lines.
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}.items():
    os.environ.setdefault(_name, _value)
