"""The memory of the GPUs that this process captions on, for its metrics."""

from __future__ import annotations

import sys

from jobs.metrics import GPU_MEMORY


def read_gpu_memory() -> None:
    """Set the gauge for each GPU that torch uses in this process; asks the driver, starts nothing.

    For a process whose model is loaded: until then another thread may be in the midst of importing torch.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    for number in range(torch.cuda.device_count()):
        if reserved := torch.cuda.memory_reserved(number):
            device = f"cuda:{number}"
            free, total = torch.cuda.mem_get_info(number)
            GPU_MEMORY.put(torch.cuda.memory_allocated(number), device, "allocated")
            GPU_MEMORY.put(reserved, device, "reserved")
            GPU_MEMORY.put(total - free, device, "used")
            GPU_MEMORY.put(total, device, "total")
