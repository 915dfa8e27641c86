"""Every planted fault of the table must be seen by its test; killed and total are printed at the end of the run."""

from collections.abc import Callable

import pytest

from tests.mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_planted_fault_is_seen(mutation: Mutation, record_property: Callable[[str, object], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("CI", "BUILD_NUMBER"):  # there pytest explains a failure in full, for minutes, to nobody here
            patch.delenv(variable, raising=False)
        mutation.killer()  # the test passes on the code as it is, or its failing would mean nothing
        mutation.plant(patch)
        try:
            mutation.killer()
        except (TypeError, NameError, AttributeError):  # a plant that does not fit the code any more
            raise
        except (Exception, pytest.fail.Exception):  # a test that skips has seen nothing, and would end this one
            record_property("mutation", "killed")
            return
    record_property("mutation", "survived")
    pytest.fail(f"the fault '{mutation.name}' survived its test")


def test_every_source_of_faults_is_in_the_table() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names)
    by_source = {mutation.source for mutation in MUTATIONS}
    assert by_source == {"public code", "notebook", "statistics", "gate", "parser", "model"}
