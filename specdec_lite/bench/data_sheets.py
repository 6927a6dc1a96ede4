"""Accelerators and large models on paper: for predictions without the machine or the weights.

Throughput is *dense*: vendors like to print figures for matrices in which two of four weights are
zero ("with sparsity"), which are twice as high and which no ordinary checkpoint reaches. A data
sheet is a ceiling: `specdec roofline` measures how much of it a machine gives.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..loading.llamas import PUBLISHED, Llama
from .roofline_model import Shape

PRECISIONS = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Device:
    """One accelerator.

    `tflops` holds 10^12 operations a second by precision, dense, a multiplication and an addition
    counted as two. float32 is plain float32: torch uses the faster, shorter TF32 only when told to.
    A precision that is missing has no fast path there.
    """

    name: str
    bandwidth_gb_s: float  # 10^9 bytes a second
    tflops: dict[str, float]
    memory_gb: float  # 10^9 bytes
    source: str  # the vendor's document
    date: str  # when the device was announced, year-month
    checked: str  # where these figures were read when this table was written, November 2026

    def ridge(self, precision: str) -> float:
        """Operations a byte at which memory and arithmetic take the same time.

        Raises:
            ValueError: no figure for this precision.
        """
        if precision not in self.tflops:
            known = ", ".join(self.tflops)
            raise ValueError(f"{self.name} has no figure for {precision!r}: choose one of {known}")
        return 1000 * self.tflops[precision] / self.bandwidth_gb_s


def _both(tflops: float) -> dict[str, float]:
    """The two short formats, which run alike."""
    return {"bfloat16": tflops, "float16": tflops}


DEVICES = {
    device.name: device
    for device in (
        Device(
            "T4", 320, {"float64": 0.254, "float32": 8.1, "float16": 65}, 16,
            "NVIDIA T4 Tensor Core GPU, data sheet and product brief PB-09256-001", "2018-09",
            "https://sysrqmts.com/en/gpus/nvidia/tesla/t4 (no sparse mode, so every figure is dense; "
            "one printing of the data sheet says 300 GB/s)",
        ),
        Device(
            "A100 80GB SXM", 2039, {"float64": 19.5, "float32": 19.5} | _both(312), 80,
            "NVIDIA A100 Tensor Core GPU data sheet, 1758950", "2020-11",
            "https://glennklockwood.com/garden/processors/A100 (312 is dense, 624 with sparsity)",
        ),
        Device(
            "H100 SXM", 3350, {"float64": 66.9, "float32": 66.9} | _both(989.4), 80,
            "NVIDIA H100 Tensor Core GPU data sheet", "2022-03",
            "https://glennklockwood.com/garden/processors/h100 (989 is dense, 1979 with sparsity)",
        ),
        Device(
            "H200 SXM", 4800, {"float64": 66.9, "float32": 66.9} | _both(989.4), 141,
            "NVIDIA H200 Tensor Core GPU data sheet (the H100's arithmetic with other memory)", "2023-11",
            "https://huggingface.co/datasets/devidasmishra/ai-inference-hardware-economics-2026 (989 dense)",
        ),
        Device(
            "B200", 8000, {"float64": 40, "float32": 80} | _both(2250), 180,
            "NVIDIA HGX B200 at 1,000 W and DGX B200 data sheet (an eighth of 1,440 GB and of 64 TB/s)", "2024-03",
            "https://glennklockwood.com/garden/processors/B200 (2250 is dense, 4500 with sparsity)",
        ),
        Device(
            "RTX 4090", 1008, {"float64": 1.29, "float32": 82.6} | _both(165.2), 24,
            "NVIDIA Ada GPU architecture, appendix A: tensor cores that add up in float32", "2022-10",
            "https://waredb.com/processor/nvidia-geforce-rtx-4090 (165 is dense, 330 with sparsity)",
        ),
        Device(
            "Apple M1 Max", 400, {"float32": 10.4}, 64,
            "Apple, Introducing M1 Pro and M1 Max (bandwidth); 4,096 lanes of the 32-core GPU (throughput)", "2021-10",
            "https://mybroadband.co.za/news/hardware/"
            "418862-apple-m1-pro-and-m1-max-new-chips-powering-the-macbook-pro.html and "
            "https://calendar-uk.co.uk/frequently-asked-questions/how-many-cores-does-apple-gpu-have",
        ),
        Device(
            "laptop CPU (Core i7-1165G7)", 51.2, {"float64": 0.179, "float32": 0.358}, 64,
            "reckoned from Intel's specification: 2 channels x 8 bytes x DDR4-3200; 4 cores x 2.8 GHz x 32 operations "
            "a cycle (two fused multiply-adds of 8 floats)", "2020-09",
            "https://www.tomshardware.com/news/intel-11th-gen-tiger-lake-cpu-obliterates-ice-lake-chip (cores, clock)",
        ),
    )
}  # fmt: skip


class Blueprint(Llama):
    """The figures of a Llama, and what a pass makes of them."""

    def shape(self, bits: int = 16) -> Shape:
        """What a pass reads and multiplies, with `bits` for each weight.

        Keys and values, and the rows of an embedding, take 2 bytes a number, or 4 where weights have 32 bits:
        formats shorter than 16 bits are for the weights that stay.
        """
        number = 4 if bits == 32 else 2
        multiplied = self.layers * self.layer_weights + self.table  # the head is always multiplied
        cache_width = 2 * self.layers * self.kv_heads * self.head_dim
        return Shape(
            parameters=self.parameters,
            weights=multiplied + self.norms,
            weight_bytes=multiplied * bits // 8 + self.norms * number,
            multiplied=multiplied,
            looked_up=0 if self.tied else self.table,
            row_bytes=0 if self.tied else self.hidden * number,
            expert_weights=0, expert_bytes=0, experts=0, chosen=0,
            cache_width=cache_width,
            cache_bytes=cache_width * number,
            attended=2 * self.layers * self.heads * self.head_dim,
        )  # fmt: skip


LLAMAS = {name: Blueprint(**vars(figures)) for name, figures in PUBLISHED.items()}
