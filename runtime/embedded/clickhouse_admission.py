"""Which statements of an analyst the embedded ClickHouse lets in.

A ClickHouse server refuses what a user has no grants for. chDB has no grants: what is read only there still writes
files (`INTO OUTFILE`), reads files as if they were tables, goes to the network (`s3(…)`), and takes several statements
as one. So a statement is looked at by the engine's own lexer and parser before it is run, and runs as a subquery, where
nothing but a query can stand.
"""

import json
import re
from dataclasses import replace
from typing import Final

from runtime.embedded.clickhouse_engine import Engine, Statement, StatementFailed

ACCESS_DENIED: Final = 497
SYNTAX_ERROR: Final = 62

# What tells of the schema and of what the engine can do; not of other statements, of users, or of the machine.
SYSTEM_TABLES: Final = frozenset(
    f"system.{name}"
    for name in ("one", "numbers", "tables", "columns", "functions", "data_type_families", "formats", "settings")
)
# Those that make rows of their arguments. The last one is what the parser makes of VALUES.
TABLE_FUNCTIONS: Final = frozenset(
    {"numbers", "zeros", "generate_series", "generateSeries", "values", "view", "SQLStandardValues"}
)
# Functions that look beyond the data: at files, at the server's own settings, at a keeper.
FUNCTIONS_REFUSED: Final = frozenset({"catboostevaluate", "getserversetting", "getmacro", "generateserialid"})

_EXPLAIN: Final = re.compile(r"EXPLAIN(\s+(AST|SYNTAX|PLAN|PIPELINE|ESTIMATE))?(?=\s)", re.IGNORECASE)
_UNSEEN: Final = frozenset({"Whitespace", "Comment"})
_DATABASES: Final = frozenset({"system", "default", "information_schema"})

# Lines of EXPLAIN AST. A name with a line break in it can only make lines more, never hide one.
_NODE: Final = r"(.*?)(?: \(alias .*\))?(?: \(children \d+\))?$"
_TABLE_FUNCTION: Final = re.compile(rf"^ *TableExpression \(children \d+\)\n *Function {_NODE}", re.MULTILINE)
_FUNCTION: Final = re.compile(rf"^ *Function {_NODE}", re.MULTILINE)
_TABLE: Final = re.compile(rf"^ *TableIdentifier {_NODE}", re.MULTILINE)
_IDENTIFIER: Final = re.compile(rf"^ *Identifier {_NODE}", re.MULTILINE)
_SETTINGS: Final = re.compile(r"^ *Set$", re.MULTILINE)


def admitted(engine: Engine, statement: Statement) -> Statement:
    """The statement as it may be run: one query that reads the tables of its database and what makes rows by itself.

    Raises:
        StatementFailed: it is not let in, with the code and, of what cannot be parsed, the words of ClickHouse.
    """
    text, format_ = _one_query(engine, statement)
    explain = _EXPLAIN.match(text)
    query = f"SELECT * FROM (\n{text[explain.end() :] if explain else text}\n)"
    explained = replace(statement, sql=f"EXPLAIN AST {query}", format="TSVRaw", settings={"readonly": "1"})
    try:
        tree = engine.run(explained).body.decode(errors="replace")
    except StatementFailed as error:
        if error.code == SYNTAX_ERROR:
            raise StatementFailed(error.code, f"{error} Only SELECT, WITH and EXPLAIN are answered here.") from None
        raise
    _check(tree, statement.database)
    return replace(statement, sql=f"{explain[0]} {query}" if explain else query, format=format_)


def _one_query(engine: Engine, statement: Statement) -> tuple[str, str]:
    """The text of the one query that a statement is, without what ends it; and the format of its answer."""
    text = statement.sql.encode()
    line = engine.rows("SELECT toJSONString(tokenizeQuery({sql:String}))", sql=statement.sql)
    tokens = [token for token in json.loads(line[0]) if token["type"] not in _UNSEEN]
    while tokens and tokens[-1]["type"] == "Semicolon":
        tokens.pop()
    if not tokens:
        raise StatementFailed(SYNTAX_ERROR, f"Code: {SYNTAX_ERROR}. The statement is empty")
    format_ = statement.format
    words = [text[token["begin"] : token["end"]].decode(errors="replace") for token in tokens[-2:]]
    if len(tokens) > 2 and words[0].upper() == "FORMAT" and {t["type"] for t in tokens[-2:]} == {"BareWord"}:
        format_ = words[1]
        del tokens[-2:]
    depth = 0
    for token in tokens:
        kind = token["type"]
        if kind in {"Semicolon", "VerticalDelimiter"}:
            raise _denied("one statement at a time")
        if kind.startswith("Error"):
            raise StatementFailed(SYNTAX_ERROR, f"Code: {SYNTAX_ERROR}. Syntax error at byte {token['begin']}: {kind}")
        depth += (kind == "OpeningRoundBracket") - (kind == "ClosingRoundBracket")
        if depth < 0:
            break
    if depth != 0:
        raise StatementFailed(SYNTAX_ERROR, f"Code: {SYNTAX_ERROR}. Syntax error: the brackets do not match")
    return text[tokens[0]["begin"] : tokens[-1]["end"]].decode(errors="replace"), format_


def _check(tree: str, database: str) -> None:
    """Look at every table, function and setting of a query."""
    for name in _TABLE_FUNCTION.findall(tree):
        if name not in TABLE_FUNCTIONS:
            raise _denied(f"the table function {name} is not for analysts")
    for name in _FUNCTION.findall(tree):
        if name.lower() in FUNCTIONS_REFUSED:
            raise _denied(f"the function {name} is not for analysts")
    for name in _TABLE.findall(tree):
        # Without a database it is of the analyst's own, or a name that the query gives itself.
        if "." in name and name.partition(".")[0] != database and name not in SYSTEM_TABLES:
            raise _denied(f"the table {name} is not for analysts")
    for name in _IDENTIFIER.findall(tree):
        parts = name.split(".")
        # `x IN system.users` names a table where a column might stand as well.
        if len(parts) > 1 and parts[0].lower() in _DATABASES and ".".join(parts[:2]) not in SYSTEM_TABLES:
            raise _denied(f"{name} is not for analysts")
    if _SETTINGS.search(tree):
        # Those of a subquery are taken even where it is read only: the limits would be what the statement says.
        raise _denied("SETTINGS are not for analysts")


def _denied(why: str) -> StatementFailed:
    return StatementFailed(ACCESS_DENIED, f"Code: {ACCESS_DENIED}. Not enough privileges: {why}. (ACCESS_DENIED)")
