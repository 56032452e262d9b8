"""What every test may use, and how tests are dealt out to parallel workers."""

import pytest

pytest_plugins = ["tests.rig.fixtures", "tests.support.ledger_fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay together; all that need Docker run on one worker, beside one engine of ours.

    (Two engines would get along, but the tests which look at what an engine leaves on the host would not.)
    """
    for item in items:
        group = "docker" if item.get_closest_marker("docker") else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
