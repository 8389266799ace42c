import pytest

pytest.register_assert_rewrite("tests.oracle.story", "tests.oracle.state", "tests.oracle.clients")
