"""The peer: the same network in PyTorch, its nn.LSTM with dropout between the layers. Runs in .venv-torch.

nn.LSTM has no recurrent dropout, so PyTorch is spared the masks of the state. The linear path, which is not trained, is missing too.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch  # type: ignore[import-not-found]  # it is installed in .venv-torch only
from torch import nn  # type: ignore[import-not-found]
from torch.nn import functional  # type: ignore[import-not-found]

STEPS, FEATURES, TARGETS = 30, 44, 4
L2 = 0.001


class Network(nn.Module):  # type: ignore[misc]  # torch is unknown here
    """model.training.network.assembly.build, layer by layer."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        units, dense = sizes["lstm_units"], sizes["dense_units"]
        self.dropouts = (sizes["lstm_dropout"], sizes["dense_dropout"], sizes["head_dropout"])
        self.lstms = nn.ModuleList(nn.LSTM(i, u, batch_first=True) for i, u in zip((FEATURES, *units), units, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm1d(u) for u in units)
        self.score = nn.Linear(units[-1], units[-1])
        self.dense = nn.ModuleList(nn.Linear(i, u) for i, u in zip((units[-1], *dense), dense, strict=False))
        self.dense_norms = nn.ModuleList(nn.BatchNorm1d(u) for u in dense)
        self.head = nn.Linear(units[-1] + dense[-1], sizes["head_units"])
        self.output = nn.Linear(sizes["head_units"], TARGETS)

    def forward(self, x: Any) -> Any:
        """Map (B, 30, 44) to (B, 4)."""
        lstm_dropout, dense_dropout, head_dropout = self.dropouts
        for lstm, norm, rate in zip(self.lstms, self.norms, lstm_dropout, strict=True):
            x = x * functional.dropout(torch.ones(x.shape[0], 1, x.shape[2]), rate)  # one mask for all steps
            x = norm(lstm(x)[0].transpose(1, 2)).transpose(1, 2)
        context = (x * torch.softmax(torch.tanh(self.score(x)), dim=1)).sum(dim=1)
        y = context
        for layer, norm, rate in zip(self.dense, self.dense_norms, dense_dropout, strict=True):
            y = functional.dropout(norm(torch.relu(layer(y))), rate)
        y = torch.relu(self.head(torch.cat([context, y], dim=1)))
        return self.output(functional.dropout(y, head_dropout))

    def penalty(self) -> Any:
        return L2 * sum(lstm.weight_ih_l0.square().sum() for lstm in self.lstms)


def step_ms(sizes: dict[str, Any], batch: int, steps: int) -> dict[str, float]:
    """Return the same as parts/training_step.py."""
    torch.manual_seed(1)
    network = Network(sizes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    windows, targets = torch.randn(batch, STEPS, FEATURES), torch.randn(batch, TARGETS)

    def step() -> float:
        began_s = time.perf_counter()
        optimiser.zero_grad()
        loss = functional.mse_loss(network(windows), targets)
        (loss + network.penalty()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        loss.item()
        return time.perf_counter() - began_s

    first_s = step()
    step()
    began_cpu_s = time.process_time()
    wall_ms = [1e3 * step() for _ in range(steps)]
    cpu_ms = 1e3 * (time.process_time() - began_cpu_s) / steps
    return {"ms": statistics.median(wall_ms), "cpu_ms": cpu_ms, "first_s": first_s}


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    found: dict[str, Any] = {str(batch): step_ms(job["sizes"], batch, job["steps"]) for batch in job["batches"]}
    print(json.dumps(found | {"torch": torch.__version__}))
