"""FastAPI with a transformers pipeline: one task owns the model and takes what waits as one batch.

Source: huggingface.co/docs/transformers/pipeline_webserver, "Dynamic batching"; without its fixed wait for a fuller
batch, and with the model in a thread, so that requests are read meanwhile. Both are in its favour.

Run: CHECKPOINT=DIR PORT=8100 python fastapi_pipeline.py
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

_MAX_ROWS = 64
_N_CORES = os.cpu_count() or 1
_N_WORKERS = int(os.environ.get("WORKERS", _N_CORES))


class Inputs(BaseModel):
    inputs: list[str]


async def serve_batches(waiting: asyncio.Queue[tuple[list[str], asyncio.Future[Any]]]) -> None:
    torch.set_num_threads(max(1, _N_CORES // _N_WORKERS))
    pipe: Any = pipeline("text-classification", model=os.environ["CHECKPOINT"], top_k=None, device="cpu")
    pipe(["warm", "up"], batch_size=2)
    while True:
        requests = [await waiting.get()]
        while not waiting.empty() and sum(len(texts) for texts, _ in requests) < _MAX_ROWS:
            requests.append(waiting.get_nowait())
        texts = [text for more, _ in requests for text in more]
        answers = await asyncio.to_thread(pipe, texts, batch_size=_MAX_ROWS, truncation=True, max_length=128)
        for own, future in requests:
            future.set_result(answers[: len(own)])
            answers = answers[len(own) :]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.waiting = asyncio.Queue()
    task = asyncio.create_task(serve_batches(app.state.waiting))
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(body: Inputs) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    await app.state.waiting.put((body.inputs, future))
    return {"predictions": await future}


if __name__ == "__main__":
    uvicorn.run(
        "fastapi_pipeline:app",
        port=int(os.environ["PORT"]),
        workers=_N_WORKERS,
        access_log=False,
        timeout_worker_healthcheck=60,  # the default, 5 s, ends a process that is still loading on a busy machine
    )
