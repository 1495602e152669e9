"""Asks a model the golden examples, through the appliance's own endpoint, and scores its answers, with Inspect.

A program of its own, run by the Python of the evaluation's environment:

    python -I program.py < job.json

The job, one JSON object on standard input, is what `run.job` makes; it holds the key, which thus stands in no list of
processes. Standard output holds one JSON object per line: `{"progress": "...", "done": 3, "of": 40}`, `{"case": ...}`
for every case and repetition, `{"text": ...}` for every text, and as the last one `{"tools": {"inspect-ai": ...}}`. A
failure is a last line `{"error": "..."}` that quotes neither prompt nor answer, and exit status 1.
"""

# mypy: disable-error-code="import-not-found,untyped-decorator"
# (Inspect is only in the evaluation's environment)

from __future__ import annotations

import asyncio
import ctypes
import importlib.metadata
import json
import math
import os
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
TELL_FD = 9
REQUEST_SECONDS = 900
RETRIES = 8
REFUSED = {"model_length": "context_length_exceeded", "content_filter": "content_filter"}
"""Inspect's reasons to stop that no engine here gives."""
# the last place: whatever the evaluation's environment has itself, comes from there
sys.path.append(str(Path(__file__).parents[2]))


def tell(line: dict[str, Any]) -> None:
    """Write one line of the protocol."""
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(TELL_FD, data) :]


class Broken(Exception):
    """The evaluation can't go on; the message is for an administrator."""


class Endpoint:
    """The appliance's API, as the job names it."""

    def __init__(self, job: dict[str, Any]) -> None:
        import httpx2

        address = job["address"]
        options: dict[str, Any] = {"timeout": httpx2.Timeout(REQUEST_SECONDS, connect=10), "trust_env": False}
        if address.startswith("unix:"):
            options["transport"] = httpx2.AsyncHTTPTransport(uds=address.removeprefix("unix:"))
            address = "http://localhost"
        elif job["certificate"]:
            options["verify"] = _pinned(job["certificate"])
        self.url = f"{address}/v1"
        self.key = job["key"]
        self._options = options

    def http(self) -> Any:
        """A client that goes nowhere else: no proxy of the environment, no redirect."""
        import httpx2

        return httpx2.AsyncClient(**self._options, headers={"x-route": "local"}, follow_redirects=False)

    def openai(self) -> Any:
        """OpenAI's client on it."""
        import openai

        return openai.AsyncOpenAI(
            api_key=self.key, base_url=self.url, http_client=self.http(), timeout=REQUEST_SECONDS, max_retries=RETRIES
        )

    def inspect(self, name: str, connections: int) -> Any:
        """Inspect's model on it; Inspect itself tries nothing twice, since the client heeds Retry-After."""
        from inspect_ai.model import GenerateConfig, get_model

        config = GenerateConfig(max_connections=connections, max_retries=0, temperature=0)
        return get_model(
            f"openai-api/appliance/{name}", base_url=self.url, api_key=self.key, config=config,
            http_client=self.http(), max_retries=RETRIES, stream=False,
        )  # fmt: skip


def _pinned(certificate: str) -> ssl.SSLContext:
    """Takes the appliance's own certificate, whoever signed it and whatever it is named, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


class Listener:
    """Asks other models what an answer is worth: how like a reference it is, and what mark a judge gives."""

    def __init__(self, job: dict[str, Any], endpoint: Endpoint) -> None:
        self._embedding, self._judge, self._seed = job["embedding"], job["judge"], job["judge_seed"]
        self._client = endpoint.openai()
        self._model: Any = endpoint.inspect(job["judge"], job["connections"]) if job["judge"] else None

    async def heard(self, check: Any, question: str, answer: str) -> float | None:
        """What is told of `answer`; None where nothing can be."""
        if check.kind == "similar":
            return await self._likeness(check.to, answer) if answer.strip() else 0.0
        return await self._mark(check.criteria, question, answer)

    async def _likeness(self, reference: str, answer: str) -> float | None:
        import openai

        try:
            made = await self._client.embeddings.create(model=self._embedding, input=[reference, answer[:8000]])
        except (openai.BadRequestError, openai.UnprocessableEntityError):  # longer than its context
            return None
        one, other = (each.embedding for each in made.data)
        return math.sumprod(one, other) if hasattr(math, "sumprod") else _cosine(one, other)

    async def _mark(self, criteria: str, question: str, answer: str) -> float | None:
        from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig

        from appliance.evaluation import judging

        system, user = judging.prompt(criteria, question, answer)
        bound = {"structured_outputs": {"choice": list(judging.MARKS)}}
        config = GenerateConfig(max_tokens=judging.TOKENS, seed=self._seed, extra_body=bound)
        messages = [ChatMessageSystem(content=system), ChatMessageUser(content=user)]
        output = await self._model.generate(messages, config=config)
        return judging.mark(output.completion)


def _cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1.0)


def evaluate(job: dict[str, Any], endpoint: Endpoint, scratch: str) -> None:
    """Have Inspect ask all cases of all sets, and tell each score."""
    import inspect_ai
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    samples = [
        Sample(
            id=f"{each['name']}/{case['id']}",
            input=[kinds[message["role"]](content=message["content"]) for message in case["messages"]],
            metadata={"set": each["name"], "case": case},
        )
        for each in job["sets"]
        for case in each["cases"]
    ]
    if not samples:
        return
    task = inspect_ai.Task(dataset=MemoryDataset(samples), solver=_solver()(), scorer=_scorer(job, endpoint)())
    (log,) = inspect_ai.eval(
        task,
        model=endpoint.inspect(job["model"], job["connections"]),
        epochs=job["repeat"],
        max_samples=job["connections"],
        fail_on_error=True,
        display="none",
        log_dir=scratch,
        log_level="error",
        log_samples=False,
        log_realtime=False,
        ctl_server=False,
        score_display=False,
    )
    if log.status != "success":
        raise Broken(str(log.error.message)[:500] if log.error else f"Inspect says {log.status}")


def _solver() -> Any:
    import openai
    from inspect_ai.solver import Generate, TaskState, solver

    @solver(name="ask")
    def ask() -> Any:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            case = state.metadata["case"]
            # another seed for each repetition: the same one would only give the same answer again
            settings = {"seed": case["seed"] + state.epoch - 1, "max_tokens": case["max_tokens"], **case["settings"]}
            try:
                return await generate(state, **settings)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as refusal:
                state.metadata["refused"] = str(refusal.code or refusal.status_code)
            except openai.APIStatusError as refusal:
                raise Broken(f"the appliance answered {refusal.status_code} {refusal.code or ''}".strip()) from None
            except openai.APIConnectionError as cause:
                raise Broken(f"the appliance can't be reached: {type(cause.__cause__ or cause).__name__}") from None
            return state

        return solve

    return ask


def _scorer(job: dict[str, Any], endpoint: Endpoint) -> Any:
    from inspect_ai.scorer import Score, Target, accuracy, scorer
    from inspect_ai.solver import TaskState
    from pydantic import TypeAdapter

    from appliance.evaluation import checks

    adapter: TypeAdapter[Any] = TypeAdapter(checks.Check)
    listener = Listener(job, endpoint)
    total = job["repeat"] * sum(len(each["cases"]) for each in job["sets"])
    scored = 0

    async def held(state: TaskState, case: dict[str, Any], answer: str) -> list[dict[str, Any]]:
        found = []
        for given in case["checks"]:
            check = adapter.validate_python(given)
            heard = None
            if isinstance(check, checks.ASKS):
                heard = await listener.heard(check, state.input_text, answer)
            score = checks.score(check, answer, heard)
            found.append({"kind": check.kind, "value": round(score.value, 4), "passed": score.passed, "why": score.why})
        return found

    @scorer(metrics=[accuracy()], name="checks")
    def golden() -> Any:
        async def judge(state: TaskState, _: Target) -> Score:
            nonlocal scored
            # of some refusals Inspect makes an answer, whose text is the error's
            refused = state.metadata.get("refused") or REFUSED.get(state.output.stop_reason)
            case = state.metadata["case"]
            answer = state.output.completion if refused is None else ""
            if refused is None:
                found = await held(state, case, answer)
            else:
                why = f"the appliance refused the request: {refused}"
                found = [{"kind": each["kind"], "value": 0.0, "passed": False, "why": why} for each in case["checks"]]
            scored += 1
            told = {"set": state.metadata["set"], "id": case["id"], "repetition": state.epoch, "checks": found}
            if job["keep_answers"]:
                told["answer"] = answer[: checks.LONGEST_ANSWER]
            tell({"case": told})
            tell({"progress": f"asking {job['model']}", "done": scored, "of": total})
            return Score(value=float(all(each["passed"] for each in found)))

        return judge

    return golden


async def perplexities(job: dict[str, Any], endpoint: Endpoint) -> None:
    """How surprised the model is by each text: it repeats the prompt with the likelihood of each token."""
    async with endpoint.openai() as client:
        for text in job["texts"]:
            tell({"progress": f"reading {text['name']}", "done": 0, "of": 1})
            made = await client.completions.create(
                model=job["model"], prompt=text["text"], echo=True, logprobs=0, max_tokens=1, temperature=0
            )
            # the first token has no likelihood, since nothing stands before it; the last is the answer's
            logprobs = made.choices[0].logprobs if made.choices else None
            told = (logprobs.token_logprobs or [])[:-1] if logprobs is not None else []
            found = [each for each in told if each is not None]
            if not found:
                raise Broken(f"{job['model']} tells no likelihood of {text['name']}")
            surprise = -sum(found)
            tell({
                "text": {
                    "name": text["name"],
                    "tokens": len(found),
                    "perplexity": math.exp(surprise / len(found)),
                    "bits_per_byte": surprise / math.log(2) / len(text["text"].encode()),
                }
            })  # fmt: skip


def main() -> int:
    """Do the job on standard input; the exit status."""
    job = json.load(sys.stdin)
    try:
        import openai

        endpoint = Endpoint(job)
        with tempfile.TemporaryDirectory() as scratch:
            evaluate(job, endpoint, scratch)
        try:
            asyncio.run(perplexities(job, endpoint))
        except openai.APIStatusError as refusal:
            raise Broken(f"the appliance answered {refusal.status_code} {refusal.code or ''}".strip()) from None
        except openai.APIConnectionError:
            raise Broken("the appliance can't be reached any more") from None
    except Broken as why:
        tell({"error": str(why)})
        return 1
    tell({"tools": {name: importlib.metadata.version(name) for name in ("inspect-ai", "openai", "jsonschema")}})
    return 0


if __name__ == "__main__":
    # what a killed command began shouldn't go on asking
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # libraries print to standard output too: only `tell` keeps the real one
    os.dup2(1, TELL_FD)
    os.dup2(2, 1)
    sys.exit(main())
