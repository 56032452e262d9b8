"""Twenty jobs within one budget, and the best of them: `python examples/sweep.py`.

Each job gets an equal share, and what it leaves of it comes back: all of them together can never cost more.
"""

from cli.library import connect_sync, job

BUDGET_CENTS = 500
RATES = [f"{number / 1000}" for number in range(1, 21)]
# Prints its loss as the last word of its stdout.
TRAIN = "import sys; rate = float(sys.argv[1]); print('loss', (rate - 0.007) ** 2)"


def main() -> None:
    share = f"{BUDGET_CENTS // len(RATES) / 100:.2f}"
    with connect_sync() as market:
        runs = {
            market.submit_job(
                job(
                    ["python3", "-c", TRAIN, rate],
                    image="python:3.12",
                    gpu="rtx4090",
                    budget=share,
                    max_time="1h",
                    labels={"sweep": "rate"},
                )
            ).job_id: rate
            for rate in RATES
        }
        losses: dict[str, float] = {}
        for job_id, rate in runs.items():
            ended = market.wait_job(job_id)
            if ended.exit_code == 0:
                losses[rate] = float(market.stdout_of(job_id).split()[-1])
        spent_micro = sum(market.get_job(job_id).charged_micro for job_id in runs)
    best = min(losses, key=losses.__getitem__)
    print(f"best rate {best} of {len(losses)}, {spent_micro / 1_000_000:.6f} credits spent")


if __name__ == "__main__":
    main()
