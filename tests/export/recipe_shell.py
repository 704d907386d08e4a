"""A shell for the recipes: our commands run, an engine's comes back as the words that it would get."""

import re
import shlex

from typer.testing import CliRunner

from perfmodel.cli.app import app

OURS = re.compile(r"\$\(draftplan ([^()]*)\)")
ROUNDS = "request,round,drafted,accepted\n" + "".join(
    f"{request},{index},2,{(request + index) % 3}\n" for request in range(20) for index in range(20)
)
SGLANG_LOG = "".join(
    f"[2026-11-28 10:14:{second:02d} TP0] Decode batch, #running-req: 8, #token: 20480, token usage: 0.05, "
    "accept len: 2.50, accept rate: 0.50, cuda graph: True, gen throughput (token/s): 512.33, #queue-req: 0\n"
    for second in range(10)
)


def counters(prefix):
    """Prometheus text of a server that drafts 3 tokens and accepts about half of them."""
    positions = "".join(
        f'{prefix}:spec_decode_num_accepted_tokens_per_pos_total{{position="{position}"}} {count}\n'
        for position, count in enumerate((730, 520, 355))
    )
    return (
        f"{prefix}:spec_decode_num_drafts_total 1000\n{prefix}:spec_decode_num_draft_tokens_total 3000\n"
        f"{prefix}:spec_decode_num_accepted_tokens_total 1605\n{positions}"
    )


METRICS = {"8000": counters("vllm"), "8080": counters("llamacpp")}


def commands_of(page):
    """The commands of all shell blocks of a page, each on one line, without remarks."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*$", "", line).strip() for line in lines) if line]


class Shell:
    """Runs in the folder that is the current one; `environment` is what was exported."""

    def __init__(self):
        self.environment = {}

    def answer(self, command):
        """What one of our commands writes to stdout."""
        return self._ours(shlex.split(command)[1:], None)

    def run(self, command):
        """The words of an engine's command, or None where the command was ours."""
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = value
            return None
        fed = None
        if command.startswith("curl "):
            url, _, command = command.partition(" | ")
            fed = METRICS[re.search(r"localhost:(\d+)/metrics", url).group(1)]
        if command.startswith("draftplan "):
            self._ours(shlex.split(command)[1:], fed)
            return None
        answers = []

        def answer(match):
            answers.append(self._ours(shlex.split(match.group(1)), None).strip())
            return f"@{len(answers) - 1}@"

        return self._words(OURS.sub(answer, command), answers)

    @staticmethod
    def _words(command, answers):
        """Split as a shell does: what is quoted stays one word, ``eval`` reads what it is given once more."""
        whole = set(re.findall(r'"@(\d+)@"', command))
        words = []
        for word in shlex.split(command):
            places = re.findall(r"@(\d+)@", word)
            if words == ["eval"]:
                for place in places:
                    word = word.replace(f"@{place}@", answers[int(place)])
                return shlex.split(word)
            if not places:
                words.append(word)
            else:
                answer = answers[int(places[0])]
                words += [answer] if places[0] in whole else answer.split()
        return words

    @staticmethod
    def _ours(arguments, fed):
        result = CliRunner().invoke(app, arguments, input=fed, prog_name="draftplan")
        assert result.exit_code == 0, (arguments, result.output)
        return result.stdout
