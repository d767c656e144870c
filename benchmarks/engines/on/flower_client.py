"""Flower's ClientApp for W: imported by name, so that Ray sends a reference to it and not the code."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from engines.mlp import epoch
from engines.workload import Data, load

app = ClientApp()


@lru_cache(maxsize=1)
def data() -> Data:
    """Read once an actor."""
    return load(os.environ["W_DATA"])


@lru_cache(maxsize=1)
def shuffles() -> np.random.Generator:
    """A generator an actor; nothing here need be reproducible."""
    return np.random.default_rng()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch on this phone's rows; the whole model travels as one flat array, which is Flower's cheapest record."""
    d, phone = data(), int(context.node_config["partition-id"])
    rows = slice(d.first[phone], d.first[phone] + d.counts[phone])
    theta = message.content["arrays"]["flat"].numpy()
    order = shuffles().permutation(d.counts[phone])
    flat = epoch(theta, d.x[rows], d.y[rows], d.workload.shapes, d.workload.batch, d.workload.rate, order)
    reply = RecordDict(
        {"arrays": ArrayRecord({"flat": Array(flat)}), "metrics": MetricRecord({"num-examples": 1})},
    )
    return Message(content=reply, reply_to=message)
