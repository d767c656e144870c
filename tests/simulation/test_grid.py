"""The in-process grid keeps Flower's promises: ids, types, one copy a node, errors as replies."""

from __future__ import annotations

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from model.errors import RunError
from simulation.grid import InProcessGrid, run_in_process


def echo() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        count = int(context.state["count"]["n"]) + 1 if "count" in context.state else 1  # type: ignore[arg-type]
        context.state["count"] = MetricRecord({"n": count})
        message.content["spoilt"] = MetricRecord({"n": 1})
        answer = {"node": context.node_id, "place": context.node_config["place"], "count": count}
        return Message(RecordDict({"a": MetricRecord(answer)}), reply_to=message)  # type: ignore[arg-type]

    @app.query("fail")
    def fail(message: Message, context: Context) -> Message:
        raise RunError("no; ask again later")

    @app.query("bug")
    def bug(message: Message, context: Context) -> Message:
        raise ZeroDivisionError

    return app


def served(kind: str, times: int = 1) -> list[Message]:
    replies: list[Message] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        for _ in range(times):
            content = RecordDict({"q": MetricRecord({"n": 0})})
            sent = [Message(content, node, kind) for node in grid.get_node_ids()]
            replies[:] = grid.send_and_receive(sent)
            assert set(content) == {"q"}
            assert {r.metadata.reply_to_message_id for r in replies} == {m.metadata.message_id for m in sent}

    run_in_process(server, InProcessGrid(echo(), [{"place": 10}, {"place": 20}]))
    return replies


def test_each_node_has_its_own_config_and_state() -> None:
    replies = served("train", times=3)
    assert [dict(r.content["a"]) for r in replies] == [
        {"node": 2, "place": 10, "count": 3},
        {"node": 3, "place": 20, "count": 3},
    ]
    assert [r.metadata.src_node_id for r in replies] == [2, 3]


def test_a_refusal_is_an_error_reply_and_a_bug_escapes() -> None:
    replies = served("query.fail")
    assert all(r.has_error() and "ask again later" in r.error.reason for r in replies)
    with pytest.raises(ZeroDivisionError):
        served("query.bug")


def test_unknown_nodes_never_answer() -> None:
    grid = InProcessGrid(echo(), [{"place": 1}])
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        content = RecordDict({"q": MetricRecord({"n": 0})})
        assert list(grid.send_and_receive([Message(content, 99, "train")])) == []
        assert grid.create_message(content, "train", 2, "7").metadata.group_id == "7"

    run_in_process(server, grid)
