"""What `usance help TOPIC` says; docs/commands.md is made of it too. Pure."""

from cli.exits import ERRORS, MEANINGS, exit_of_code
from cli.render import Part, lay_out, table

# In what follows, a line that begins with four blanks is shown as it is.
_TEXTS = {
    "job": """How a JOB is called.

JOB is the id that `usance run` printed, a unique beginning of it (with or without job_), a name
given by --name that one job has, or one that runs, or @last for your newest job. A HOST is an id, a
unique beginning of one, or its machine's name. The life of a job: queued, starting, running, then
succeeded, failed, cancelled or expired.

    usance show @last        facts, attempts, what has happened, cost so far
    usance why @last         why it waits, or why it ended so and who pays
    usance logs -f @last     its output, from the beginning, to its end
    usance cancel @last      the end; nothing after this moment is charged""",
    "money": """What a job costs, and when.

Money is in credits, like 5 or 0.60, with at most six decimals. Prices are for one GPU for one hour
and are locked when the job is placed. The budget is held when the job is taken in and is the most
that it can cost; what is left comes back at the end. Only run time that the coordinator witnessed
is charged, by the millisecond: not waiting, not pulling an image, not what comes after you have
asked for the end. What a host's own fault made worthless is given back by itself. The platform's
fee is a part of each charge, nothing on top.

    usance bill JOB --verify     compute every line again from its evidence, on your machine
    usance budget --cap 100      the most that the jobs of one month may cost""",
    "units": """How amounts, times and sizes are written.

    credits      5, 0.60          at most six decimals
    durations    500ms, 45s, 2h, 1h30m, 7d
    sizes        24GB (decimal, as vendors count), 24GiB, 10kB
    GPUs         rtx4090, rtx4090:2, any:4; part of the model's name is enough
    moments      in your own zone, which is named; --utc or USANCE_UTC=1 for UTC; months are those of UTC""",
    "json": """Answers for programs.

Every command takes --json (or USANCE_JSON=1): one object on one line of stdout, with
schema_version; `offers --watch` writes one for each change. Errors are one object on stderr with
error.code, error.message and error.faults; see `usance help errors`. `run`, `apply`, `wait` and
`logs` leave stdout to the job and write JSON lines on stderr: "note" for progress, "event",
"log_end", and "job" at the end. Amounts are whole micro-credits (_micro), times milliseconds since
1970 (_at_ms) or of a length (_ms), sizes bytes, digests hexadecimal. Within one schema_version
fields are added and never change their meaning.

    usance jobs --json | jq -r '.jobs[] | select(.state == "RUNNING") | .job_id'""",
    "environment": """What the environment can say.

    USANCE_SERVER         the coordinator's market port, HOST:PORT
    USANCE_CA             a file: the certificate of the authority that the coordinator must show
    USANCE_TOKEN          the access token itself; USANCE_TOKEN_FILE: a file that holds it
    USANCE_PROFILE        which profile counts; USANCE_PROFILE_FILE: where they are kept
    USANCE_JSON=1         like --json;  USANCE_UTC=1 like --utc;  USANCE_DEBUG=1 like --debug

Every option has a variable too: USANCE_, the command, and the option, in capitals and with _ for -,
like USANCE_RUN_MAX_PRICE=0.60 or USANCE_RUN_YES=1; an option that may be repeated takes several,
separated by blanks. An option on the command line counts first, then the environment, then the
profile.""",
    "signing-in": """Signing in, for people; and tokens, for scripts.

The operator sends you an invitation: `usance login` asks for it and for the password that you wish
to have. From then on it is your account and that password. Either opens a session: it renews itself
while you use it, ends after some weeks or when you sign out, and can be shared by programs that run
at once. Who has been sent a token pastes that instead. Scripts and other machines get tokens of
their own, for no more than they need.

    usance login --server HOST:PORT --ca ca.pem                    by an invitation, or a token
    usance login --server HOST:PORT --ca ca.pem --account alice    by the password
    usance password                  another one; ends your other sessions
    usance sessions list             where you are signed in; usance sessions revoke SESSION
    usance logout                    ends the session and forgets it
    usance token create --label ci --scope jobs:write --lifetime 7d

With a token of the operator's own identity provider, set USANCE_TOKEN to it.""",
    "profiles": """Several markets, or several accounts.

`usance login` keeps what you signed in with, and the coordinator's address and authority, in one
file (~/.config/usance/profiles.toml) that only you can read. With --profile NAME it is kept beside
others.

    usance login --profile work --server HOST:PORT --ca ca.pem
    usance offers --profile work        for one command; USANCE_PROFILE=work for a whole shell
    usance profile use work             from now on
    usance profile list
    usance logout --profile work --revoke

A profile that is named on the command line is meant whole: USANCE_SERVER, USANCE_TOKEN and
USANCE_CA do not count.""",
    "network": """What a job may reach.

Without more, a container has no network at all. --network internet lets it reach the public
internet, --reach HOST[:PORT] that place and nothing else; both only on hosts whose seller lets jobs
have it. Never the machine, its own network, or another job. Nothing can reach the job from outside;
its output is what it writes.

    usance run --reach huggingface.co:443 --image ... --budget 1 -- python fetch.py""",
    "job-file": """A job in a file, for `usance apply`.

TOML. The keys are the options of `usance run` without their dashes; command is an array of words;
env, label and host-label are tables. What is wrong is told with its line, and what was probably
meant. More: docs/job-file.md.

    image = "python:3.12"
    command = ["python", "train.py"]
    gpu = "rtx4090:2"
    budget = 5
    on-host-loss = "replace"
    retries = 2

    [env]
    EPOCHS = 10""",
}
TOPICS = (*_TEXTS, "exit-codes", "errors")


def summary(topic: str) -> str:
    return topic_lines(topic)[0]


def topic_lines(topic: str) -> list[str]:
    match topic:
        case "exit-codes":
            return [
                "What the exit codes mean.",
                "",
                "`usance run`, `apply` and `wait` exit with the job's own code. These are for the rest:",
                "",
                *_shown(
                    table(("CODE", "MEANING"), [(str(code.value), text) for code, text in MEANINGS.items()])
                ),
            ]
        case "errors":
            rows = [(code, str(exit_of_code(code).value), text) for code, text in ERRORS.items()]
            return [
                "What the codes of errors mean.",
                "",
                "With --json an error is one object on stderr; error.code keeps its meaning:",
                "",
                *_shown(table(("ERROR", "EXITS", "MEANING"), rows)),
            ]
        case _:
            return _TEXTS[topic].split("\n")


def _shown(parts: list[Part]) -> list[str]:
    return [f"    {line}" for line in lay_out(parts)]
