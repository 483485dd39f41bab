"""Flows: the stages as Prefect flows, the recipes, and the command line."""

import os

# Read by the libraries when they are first imported, and inherited by every process that a run starts. None of them
# may phone home, and none may look for updates or weights on the network unless the user says so.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # What the rooms log is shown on a run's page; outside a run there is no page.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "curation,evaluation,flows,model,training",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray starts workers at niceness 15; ours are the work that the machine is there for.
    "RAY_worker_niceness": "0",
}.items():
    os.environ.setdefault(_name, _value)
if os.environ.get("RAY_ADDRESS", "127.0.0.1").startswith(("127.0.0.1", "localhost")):
    # Ray serves its ports on every interface, and looks for a head at 127.0.0.1 on the machine's own address. This
    # switch, named for the systems where it is off by default, keeps a Ray that is started here on loopback, and finds
    # one there.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
