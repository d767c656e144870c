"""Mode pairwise over Flower: five questions a sum, to whoever is still there, and one release (spec 13.15)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from fl_server.cohort import select
from fl_server.coordinator import Coordinator, Question
from fl_server.ingress import one_line
from fl_server.ingress_steps import PART, OpenStep, read_mail
from fl_server.rounds import Phase, Release
from fl_server.seat import Seat
from fl_server.strategy import Clock, FederationStrategy, reason, write_question
from model.errors import ContractError, RoundError
from model.secagg.context import Context
from model.secagg.fixedpoint import Units
from model.secagg.messages import Advert
from model.secagg.pairwise_server import PairwiseServer
from model.secagg.terms import ATTEMPTS, SurvivorList, Terms
from model.secagg.witness import Witness

TRIES = 3  # attempts at one sum before the run ends; the witness signs ATTEMPTS in all, so a resumed run has more
MOST_NAMED = 100  # sentences about phones left out, in one release
Mail = Mapping[str, bytes]


class PairedStrategy(FederationStrategy):
    """One sum after the other by pairwise masking; otherwise as its base.

    Each step is one exchange of at most `timeout` seconds; who does not answer it is lost to the attempt. An attempt
    that ends before the witness signed its list is made again with a new roster, TRIES times; nothing is open then.
    After that signature the sum is released, or void for good.
    """

    def __init__(self, coordinator: Coordinator, seat: Seat, *, timeout: float, clock: Clock) -> None:
        super().__init__(coordinator, timeout=timeout, clock=clock)
        self._seat = seat

    def run(self, grid: Grid) -> Result:
        """Every remaining phase, in order. RoundError when one cannot be closed; nothing of it is released then."""
        while (question := self._coordinator.open()) is not None:
            phase = question.phase
            nodes = select(grid.get_node_ids(), self._coordinator.plan, phase.round, phase.participation)
            self._phase(grid, question, nodes)
        return Result()

    def _phase(self, grid: Grid, question: Question, nodes: Sequence[int]) -> Release:
        coordinator, phase = self._coordinator, question.phase
        why: Exception | None = None
        for _ in range(TRIES):
            attempt = coordinator.attempt(phase)
            if attempt >= ATTEMPTS:
                break
            talk = self._talk(grid, question, nodes, attempt)
            try:
                total = talk.run()
            except (RoundError, ContractError) as error:
                why = error
                if talk.witness.signed:
                    return coordinator.void(question, talk.counts, RoundError(str(error)))
                continue
            return coordinator.settle(question, talk.counts, total)
        raise RoundError(f"{phase.name} has no sum after its attempts ({why}); wait for more phones and start it again")

    def _talk(self, grid: Grid, question: Question, nodes: Sequence[int], attempt: int) -> Talk:
        """One attempt at a sum; a test puts a hostile one here."""
        return Talk(self, grid, question, nodes, attempt)

    def terms(self) -> Terms:
        """What the plan fixes."""
        return Terms.of(self._coordinator.plan, self._seat.public)

    def witness(self, phase: Phase) -> Marking:
        """The witness, before whose signature under a list the phase is marked as begun."""
        return Marking(self._seat.witness, self._coordinator, phase)

    def ask(self, grid: Grid, messages: Sequence[Message]) -> list[Message]:
        """Push, and poll until all have answered or the time is up."""
        return self._exchange(grid, messages)

    def message(self, question: Question, node: int, step: str, parts: ConfigRecord) -> Message:
        """A step's question to one node: the task as ever, and the phones' mail."""
        content = RecordDict({**dict(write_question(question)), PART: parts})
        return Message(content, node, f"query.{step}", group_id=str(question.phase.round), ttl=self._timeout)

    def dimension(self, phase: Phase) -> int:
        """Numbers in the sum."""
        return self._coordinator.dimension(phase)

    @property
    def plan_digest(self) -> str:
        """Of the plan that is run."""
        return self._coordinator.plan.digest

    @property
    def field(self) -> bool:
        """Whether a node is one phone."""
        return self._coordinator.plan.topology == "field"


@dataclass
class Marking:
    """A `Witness` that durably marks a phase before a list is signed: from there on the sum may be known to someone."""

    inner: Witness
    coordinator: Coordinator
    phase: Phase
    signed: bool = False

    def sign_roster(self, context: Context, attempt: int, adverts: Sequence[Advert]) -> bytes:
        """As the witness."""
        return self.inner.sign_roster(context, attempt, adverts)

    def sign_list(self, survivors: SurvivorList, signatures: Mapping[int, bytes]) -> bytes:
        """As the witness."""
        self.coordinator.mark(self.phase)
        signature = self.inner.sign_list(survivors, signatures)
        self.signed = True
        return signature


@dataclass
class Talk:
    """One attempt: five exchanges between a `PairwiseServer` and the phones behind the nodes.

    A phone is named by its node and its number there. What a node says wrongly is named in `refused`.
    """

    strategy: PairedStrategy
    grid: Grid
    question: Question
    nodes: Sequence[int]
    attempt: int
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        phase = self.question.phase
        dim = self.strategy.dimension(phase)
        place = Context(self.strategy.plan_digest, phase.kind, phase.round, self.question.model_digest, dim)
        self.witness = self.strategy.witness(phase)
        self.server = PairwiseServer(place, self.strategy.terms(), self.witness, self.attempt)

    def run(self) -> Units:
        """The sum (dim,) int64; RoundError or ContractError if the attempt ends without one."""
        server = self.server
        adverts = self.ask("advertise", {name_of(node, 0): b"" for node in self.nodes})
        deals = self.ask("share", server.place(adverts))
        uploads = self.ask("upload", server.deliver(deals))
        agreements = self.ask("agree", server.survivors(uploads))
        reveals = self.ask("unmask", server.certify(agreements))
        return server.unmask(reveals)

    def ask(self, step: str, mail: Mail) -> dict[str, bytes]:
        """What the phones in `mail` answer to it, by name; who is silent, or answers out of form, is left out."""
        by_node: dict[int, dict[int, bytes]] = {}
        for name, data in mail.items():
            node, number = place_of(name)
            by_node.setdefault(node, {})[number] = data
        return self.exchange(step, by_node)

    def exchange(self, step: str, by_node: Mapping[int, Mapping[int, bytes]]) -> dict[str, bytes]:
        """One message a node, and what came back in time."""
        sent = [self.strategy.message(self.question, node, step, self._parts(step, by_node[node])) for node in by_node]
        replies = self.strategy.ask(self.grid, sent)
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
        answers: dict[int, list[dict[int, bytes]]] = {}
        for reply in replies:
            node = nodes.get(reply.metadata.reply_to_message_id)
            if node is not None and (read := self._read(node, step, reply, by_node[node])) is not None:
                answers.setdefault(node, []).append(read)
        found: dict[str, bytes] = {}
        for node, several in answers.items():
            if any(other != several[0] for other in several[1:]):
                self._name(f"node {node} gave two different answers to {step}; neither is counted")
                continue
            found |= {name_of(node, number): data for number, data in several[0].items()}
        return found

    @property
    def counts(self) -> tuple[int, int, int, tuple[str, ...]]:
        """Phones, nodes asked, nodes with a phone in the sum, and who was left out, as in a release."""
        counted = self.server.counted
        replied = {place_of(name)[0] for name in counted}
        named = [f"node {place_of(name)[0]}: {why}" for name, why in sorted(self.server.reports.items())]
        return len(counted), len(self.nodes), len(replied), tuple([*self.refused, *named][:MOST_NAMED])

    def _parts(self, step: str, mail: Mapping[int, bytes]) -> ConfigRecord:
        mail = {} if step == "advertise" else mail
        return ConfigRecord({"attempt": self.attempt, "phones": list(mail), "messages": list(mail.values())})

    def _read(self, node: int, step: str, reply: Message, asked: Mapping[int, bytes]) -> dict[int, bytes] | None:
        if not reply.has_content():
            self._name(f"node {node}: {reason(reply)}")
            return None
        open_step = self._open(step)
        try:
            mail = read_mail(reply.content, range(open_step.most_phones) if step == "advertise" else asked, open_step)
        except ContractError as error:
            self._name(f"node {node}: {one_line(error)}")
            return None
        for why in mail.refused:
            self._name(f"node {node}: {why}")
        return mail.bodies

    def _open(self, step: str) -> OpenStep:
        """The step as the door knows it: the sum, the attempt, and how much a node may say."""
        most = 1 if self.strategy.field else self.question.phase.population
        return OpenStep(step, self.server.context, self.attempt, self.server.terms.neighbours, most)

    def _name(self, why: str) -> None:
        if len(self.refused) < MOST_NAMED:
            self.refused.append(why)


def name_of(node: int, number: int) -> str:
    """How a phone is called here."""
    return f"{node}/{number}"


def place_of(name: str) -> tuple[int, int]:
    """Inverse of `name_of`."""
    node, number = name.split("/")
    return int(node), int(number)
