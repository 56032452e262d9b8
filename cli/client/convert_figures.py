"""Small parts of jobs and bills: how a job goes, and what was given back."""

from cli.figures import GpuFigures, JobFigures
from cli.model import BillRefund
from usance.v1 import market_pb2, types_pb2


def figures_of(message: types_pb2.JobFigures) -> JobFigures:
    return JobFigures(
        cpu_milli=message.cpu_milli if message.HasField("cpu_milli") else None,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        gpus=tuple(map(_gpu, message.gpus)),
    )


def _gpu(message: types_pb2.GpuFigures) -> GpuFigures:
    return GpuFigures(
        gpu_uuid=message.gpu_uuid,
        utilization_percent=message.utilization_percent if message.HasField("utilization_percent") else None,
        memory_used_bytes=message.memory_used_bytes if message.HasField("memory_used_bytes") else None,
        power_mw=message.power_mw if message.HasField("power_mw") else None,
        temperature_c=message.temperature_c if message.HasField("temperature_c") else None,
    )


def refund_of(message: market_pb2.BillRefund) -> BillRefund:
    return BillRefund(
        transfer_id=message.transfer_id,
        amount_micro=message.amount_micro,
        reason=message.reason,
        refunded_at_ms=message.refunded_at_ms,
    )
