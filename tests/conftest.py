"""What every test may use."""

pytest_plugins = [
    "tests.rig.fixtures",
    "tests.support.ledger_fixtures",
    "tests.support.store_fixtures",
    "tests.support.running_dispatcher",
]
