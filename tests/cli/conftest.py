from tests.data.conftest import table
from tests.training.conftest import _a_pipe_of_the_packages_own_width, _no_curves, copied, dataset, finished, schema

__all__ = ["_a_pipe_of_the_packages_own_width", "_no_curves", "copied", "dataset", "finished", "schema", "table"]
