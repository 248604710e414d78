"""Orders that concern more than one node, among real cores in a pretended network."""

import random
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import DiskModel, ServedModel, ServingState
from meshllm.core.effects import Answer, Effect, KeepOrders, Send, StartEngine
from meshllm.core.engines import EngineState
from meshllm.core.events import Event
from meshllm.core.ids import ConnectionId, ModelId, NodeId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.limits import (
    LOAD_WAIT_S,
    ORDER_ANSWER_S,
    ORDER_REACH_S,
    ORDER_WANTED_INTERVAL_S,
    ORDERS_OF_PEERS,
)
from meshllm.core.members.times import lan
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.messages import Order, OrderResult
from meshllm.core.names import NameIndex
from meshllm.core.rights import GUEST
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.serving.order_book import OrderBook
from meshllm.core.serving.remote_orders import RemoteOrders, Surroundings
from meshllm.core.standing import MemberState
from meshllm.core.view import ColdModel, LocalModel, Member, MeshView, Replica
from meshllm.testing.sim import SimMesh, SimNode
from tests.core.builders import a_machine, a_spec
from tests.core.members.builders import an_announcement

T = TypeVar("T")
TINY = ModelId("tiny")


class World:
    """A simulated mesh whose nodes are asked for things."""

    def __init__(self, *, seed: int = 1) -> None:
        """Begin with nobody."""
        self.sim = SimMesh(seed, times=lan())
        self.sim.observers.append(self._listen)
        self.outcomes: dict[str, Outcome] = {}
        self.effects: list[tuple[str, Effect]] = []
        self._asked = 0

    def _listen(self, node: SimNode, _: Event, effects: tuple[Effect, ...]) -> None:
        self.effects += [(node.node, effect) for effect in effects]
        for effect in effects:
            if isinstance(effect, Answer):
                assert effect.request_id not in self.outcomes, "answered twice"
                self.outcomes[effect.request_id] = effect.outcome

    def start(self, *names: str, models: tuple[str, ...] = ("tiny",)) -> None:
        """Start some nodes that serve what they have, the first node of all being the one that they know."""
        for name in names:
            first = next(iter(self.sim.nodes), None)
            self.sim.start(
                name,
                (first,) if first is not None else (),
                models,
                serving=ServingPolicy(requested=tuple(model.partition("=")[0] for model in models)),
            )
        self.sim.run(5)

    def ask(self, name: str, verb: Verb, model: str = "tiny", *, scope: str = "mesh", **more: object) -> str:
        """Ask a node for something; return the request's id."""
        self._asked += 1
        intent = Intent(verb=verb, model=model, request_id=f"r{self._asked}", scope=scope, **more)  # type: ignore[arg-type]
        self.sim.post(NodeId(name), ev.IntentReceived(intent=intent))
        return intent.request_id

    def carried_out(
        self, name: str, verb: Verb, model: str = "tiny", *, within_s: float = 10.0, **more: object
    ) -> Outcome:
        """Ask a node for something, and return how it ended."""
        request = self.ask(name, verb, model, **more)  # type: ignore[arg-type]
        self.sim.run_while(lambda: request not in self.outcomes, within_s)
        return self.outcomes[request]

    def state(self, name: str, model: ModelId = TINY) -> EngineState:
        """Return how a model is at a node."""
        return self.sim.nodes[NodeId(name)].core.view.local[model].state

    def of(self, name: str, kind: type[T]) -> list[T]:
        """Return a node's effects of a kind so far."""
        return [effect for node, effect in self.effects if node == name and isinstance(effect, kind)]

    def want(self, name: str, model: ModelId = TINY) -> None:
        """Let a request name a model."""
        self.sim.post(NodeId(name), ev.ModelWanted(model=model))


@pytest.mark.rows("LIF-1")
def test_an_unload_in_the_mesh_ends_every_replica_wherever_it_was_asked_for() -> None:
    """Also at a node that does not serve it; the answer comes when all are done."""
    world = World()
    world.start("a", "b")
    world.start("c", models=())

    outcome = world.carried_out("c", Verb.UNLOAD)

    assert outcome.is_done, outcome.message
    assert outcome.message == "tiny is unloaded at a (a), b (b)"
    assert [world.state(name) for name in "ab"] == [EngineState.STOPPED] * 2
    world.sim.run(30)
    assert [world.state(name) for name in "ab"] == [EngineState.STOPPED] * 2


def test_a_late_joiner_does_not_bring_back_what_was_unloaded() -> None:
    """It hears of the order and stops what it began with."""
    world = World()
    world.start("a")
    world.carried_out("a", Verb.UNLOAD)

    world.start("b")
    world.sim.run(10)

    assert world.state("b") is EngineState.STOPPED
    assert len(world.of("b", StartEngine)) <= 1


def test_a_healed_network_does_not_bring_back_what_was_unloaded() -> None:
    """The other side had not heard of it."""
    world = World()
    world.start("a", "b", "c")
    world.sim.network.divide([NodeId("a")], [NodeId("b"), NodeId("c")])
    world.sim.run(40)
    assert world.carried_out("a", Verb.UNLOAD).is_done
    assert world.state("b") is EngineState.READY

    world.sim.network.heal()
    world.sim.run(90)

    assert [world.state(name) for name in "abc"] == [EngineState.STOPPED] * 3


@pytest.mark.rows("LIF-6")
def test_a_request_brings_an_unloaded_model_back_and_ends_the_order() -> None:
    """What is held stays away."""
    world = World()
    world.start("a", "b")
    world.carried_out("a", Verb.UNLOAD)

    world.want("b")
    world.sim.run(5)

    assert (world.state("a"), world.state("b")) == (EngineState.STOPPED, EngineState.READY)
    order = world.sim.nodes[NodeId("a")].core.view.orders[TINY]
    assert order.verb is Verb.LOAD
    assert not any(node.core.view.local[TINY].held for node in world.sim.nodes.values())


def test_a_model_held_in_the_mesh_comes_back_by_an_order_alone() -> None:
    """At every node, whichever is asked."""
    world = World()
    world.start("a", "b")

    assert world.carried_out("a", Verb.UNLOAD, hold=True).is_done
    world.sim.run(2)
    assert all(node.core.view.local[TINY].held for node in world.sim.nodes.values())
    world.want("a")
    world.want("b")
    world.sim.run(5)
    assert [world.state(name) for name in "ab"] == [EngineState.STOPPED] * 2

    assert world.carried_out("b", Verb.LOAD).is_done
    world.sim.run(2)
    assert (world.state("a"), world.state("b")) == (EngineState.STOPPED, EngineState.READY)
    assert not any(node.core.view.local[TINY].held for node in world.sim.nodes.values())


def test_an_order_to_one_node_changes_nothing_elsewhere() -> None:
    """By its name or the beginning of its id."""
    world = World()
    world.start("a", "bbbbbb", "cccccc")

    outcome = world.carried_out("a", Verb.UNLOAD, scope="bbbb")

    assert outcome.is_done
    assert [world.state(name) for name in ("a", "bbbbbb", "cccccc")] == [
        EngineState.READY, EngineState.STOPPED, EngineState.READY,
    ]  # fmt: skip
    assert world.sim.nodes[NodeId("a")].core.view.orders == {}
    assert world.carried_out("a", Verb.LOAD, scope="bbbbbb").is_done
    assert world.state("bbbbbb") is EngineState.READY


def test_a_model_is_pinned_at_one_node_and_never_at_all() -> None:
    """Each node's memory is its own; another one may be told."""
    world = World()
    world.start("a", "bbbbbb")

    there = world.carried_out("a", Verb.PIN, scope="bbbbbb")
    everywhere = world.carried_out("a", Verb.PIN, scope="mesh")

    pins = [world.sim.nodes[NodeId(name)].core.view.local[TINY].pin for name in ("a", "bbbbbb")]
    assert (there.is_done, there.message, pins) == (True, "tiny stays in memory once it is there", [None, True])
    assert (everywhere.code, everywhere.param) == (OutcomeCode.INVALID_VALUE, "scope")


def test_a_node_that_nobody_knows_is_said_to_be_none() -> None:
    """A typing error must not look like a dead machine."""
    world = World()
    world.start("a", "bbbbb1", "bbbbb2")

    nobody = world.carried_out("a", Verb.UNLOAD, scope="nobody")
    several = world.carried_out("a", Verb.UNLOAD, scope="bbbb")
    myself = world.carried_out("a", Verb.UNLOAD, scope="a")

    assert (nobody.code, several.code) == (OutcomeCode.UNREACHABLE, OutcomeCode.UNREACHABLE)
    assert "no node of the mesh is called 'nobody'" in nobody.message
    assert "could mean any of: bbbbb1, bbbbb2" in several.message
    assert myself.is_done
    assert world.state("a") is EngineState.STOPPED


def guarded(world: World, name: str, **serving: object) -> SimNode:
    """Start a node with another policy about serving."""
    node = world.sim.start(name, ("a",), ("tiny",), serving=ServingPolicy(requested=("tiny",), **serving))  # type: ignore[arg-type]
    world.sim.run(30)
    return node


def test_a_node_that_nobody_may_control_goes_on() -> None:
    """And says so; the others obey."""
    world = World()
    world.start("a")
    guarded(world, "b", is_controllable=False)
    assert world.state("b") is EngineState.READY

    outcome = world.carried_out("a", Verb.UNLOAD)

    assert outcome.code is OutcomeCode.NOT_ALLOWED
    assert outcome.message == (
        "tiny is unloaded at a (a); b (b): this node lets no other node load and unload its models"
    )
    world.sim.run(20)
    assert (world.state("a"), world.state("b")) == (EngineState.STOPPED, EngineState.READY)


def as_guest(world: World, name: str) -> None:
    """Take a node's right to administer away."""
    world.sim.post(NodeId(name), ev.RightsGranted(rights=GUEST))
    world.sim.run(1)


@pytest.mark.rows("SEC-1")
def test_who_may_not_administer_orders_nobody_but_itself() -> None:
    """Said at once, without asking anybody."""
    world = World()
    world.start("a", "b")
    as_guest(world, "b")

    assert world.carried_out("b", Verb.UNLOAD).code is OutcomeCode.NOT_ALLOWED
    assert world.carried_out("b", Verb.UNLOAD, scope="a").code is OutcomeCode.NOT_ALLOWED
    assert world.carried_out("b", Verb.UNLOAD, scope="node").is_done
    assert (world.state("a"), world.state("b")) == (EngineState.READY, EngineState.STOPPED)


def told(world: World, name: str, peer: str, message: Order | OrderResult) -> list[Send]:
    """Let a node hear a message on its connection to a peer; return what it says to that peer about orders."""
    node = world.sim.nodes[NodeId(name)]
    before = len(world.effects)
    link = node.core._members.circle.links[NodeId(peer)]
    event = ev.MessageReceived(peer=NodeId(peer), connection=link.connection, message=message)
    world.sim.post(NodeId(name), event)
    new = [effect for at, effect in world.effects[before:] if at == name and isinstance(effect, Send)]
    return [effect for effect in new if isinstance(effect.message, OrderResult | Order)]


def an_order(request_id: str = "1.1", verb: Verb = Verb.UNLOAD, **more: object) -> Order:
    """Return an order as it comes from a peer."""
    return Order(intent=Intent(verb=verb, model="tiny", request_id=request_id, **more))  # type: ignore[arg-type]


@pytest.mark.rows("SEC-1")
def test_a_connection_without_the_right_is_refused_by_the_receiver() -> None:
    """Whatever the peer believes of itself."""
    world = World()
    world.start("a", "b")
    link = world.sim.nodes[NodeId("a")].core._members.circle.links[NodeId("b")]
    link.rights = GUEST

    (answer,) = told(world, "a", "b", an_order())

    assert isinstance(answer.message, OrderResult)
    assert answer.message.outcome.code is OutcomeCode.NOT_ALLOWED
    assert world.state("a") is EngineState.READY


def test_an_order_that_comes_twice_is_carried_out_once_and_never_passed_on() -> None:
    """A connection may break between the order and its answer."""
    world = World()
    world.start("a", "b")

    first = told(world, "a", "b", an_order(verb=Verb.LOAD, scope="mesh"))
    second = told(world, "a", "b", an_order(verb=Verb.UNLOAD))
    other = told(world, "a", "b", an_order("1.2", verb=Verb.DEFAULT, scope="mesh"))

    assert [effect.peer for effect in (*first, *second, *other)] == ["b"] * 3
    assert first == second
    assert world.state("a") is EngineState.READY
    views = {name: world.sim.nodes[NodeId(name)].core.view for name in "ab"}
    assert views["a"].default_choice is None


def test_answered_orders_are_forgotten_in_time() -> None:
    """Memory is bounded, whatever an admin's program does."""
    world = World()
    world.start("a", "b")

    for number in range(ORDERS_OF_PEERS + 10):
        told(world, "a", "b", an_order(f"1.{number}", verb=Verb.LOAD))

    remote = world.sim.nodes[NodeId("a")].core._orders
    assert len(remote._taken) <= ORDERS_OF_PEERS


def test_answers_that_nobody_waits_for_mean_nothing() -> None:
    """Late, or invented."""
    world = World()
    world.start("a", "b")
    result = OrderResult(request_id="9.9", outcome=Outcome(code=OutcomeCode.DONE, message="x"))

    assert told(world, "a", "b", result) == []


def test_a_node_that_dies_under_an_order_is_named_and_hears_of_it_when_it_is_back() -> None:
    """The register catches it."""
    world = World()
    world.start("a", "b")
    world.start("c", models=())
    world.sim.suspend("b")
    request = world.ask("c", Verb.UNLOAD)
    world.sim.run(1)
    world.sim.crash("b")
    world.sim.run_while(lambda: request not in world.outcomes, 60)

    outcome = world.outcomes[request]
    assert outcome.code is OutcomeCode.UNREACHABLE
    assert outcome.message.startswith("tiny is unloaded at a (a); b (b): it is gone from the mesh")

    world.sim.restart("b")
    world.sim.run(60)
    assert world.state("b") is EngineState.STOPPED


def test_a_node_that_never_answers_is_not_waited_for_for_ever() -> None:
    """It lives, and says nothing."""
    world = World()
    world.start("a", "b")
    world.sim.nodes[NodeId("b")].core._orders.on_order = lambda *_: []  # type: ignore[method-assign, assignment]

    outcome = world.carried_out("a", Verb.LOAD, "other", scope="b", within_s=10 * ORDER_ANSWER_S)

    assert outcome == Outcome(code=OutcomeCode.UNREACHABLE, message="it did not answer in time")


def test_a_node_without_a_connection_is_dialled_and_given_up_soon() -> None:
    """In a large mesh not everybody is connected to everybody."""
    world = World()
    world.start("a", "b")
    core = world.sim.nodes[NodeId("a")].core
    link = core._members.circle.links[NodeId("b")]
    lost = ev.PeerLost(peer=NodeId("b"), connection=link.connection, code="spare")
    core.handle(lost, world.sim.nodes[NodeId("a")].clock_s)

    outcome = world.carried_out("a", Verb.UNLOAD, scope="b", within_s=2 * ORDER_REACH_S)

    assert outcome.is_done or outcome.code is OutcomeCode.UNREACHABLE
    assert any(isinstance(effect.message, Order) for effect in world.of("a", Send)) == outcome.is_done


def test_a_lost_connection_makes_the_order_come_again() -> None:
    """Under the same name, so that it is done once."""
    world = World()
    world.start("a", "b")
    sim_b = world.sim.nodes[NodeId("b")].core
    world.sim.suspend("b")
    request = world.ask("a", Verb.UNLOAD, scope="b")
    again = ev.PeerConnected(
        peer=NodeId("b"), connection=ConnectionId(999), address=world.sim.nodes[NodeId("b")].config.addresses[0],
        is_dialled=True, rights=sim_b.view.me.rights, rtt_s=0.001,
    )  # fmt: skip
    before = len(world.of("a", Send))
    world.sim.post(NodeId("a"), again)

    orders = [effect.message for effect in world.of("a", Send)[before:] if isinstance(effect.message, Order)]
    assert [order.intent.request_id for order in orders] == ["1.1"]
    assert request not in world.outcomes


def test_unknown_and_ambiguous_names_are_refused_before_anything_is_ordered() -> None:
    """The register holds models, not typing errors."""
    world = World()
    world.start("a", models=("tiny-Q4", "tiny-Q8"))

    assert world.carried_out("a", Verb.UNLOAD, "nonsense").code is OutcomeCode.UNKNOWN_MODEL
    assert world.carried_out("a", Verb.UNLOAD, "tiny").code is OutcomeCode.AMBIGUOUS_MODEL
    assert world.carried_out("a", Verb.LOAD, "tiny").code is OutcomeCode.AMBIGUOUS_MODEL
    assert world.carried_out("a", Verb.LOAD, "nonsense").code is OutcomeCode.UNKNOWN_MODEL
    assert world.carried_out("a", Verb.UNLOAD, "a\nb", scope="a").code is OutcomeCode.UNKNOWN_MODEL
    assert world.sim.nodes[NodeId("a")].core.view.orders == {}


def test_a_name_that_cannot_be_said_between_nodes_is_refused_here() -> None:
    """The other node would take this one for broken."""
    world = World()
    world.start("a", "b")

    assert world.carried_out("a", Verb.LOAD, "x" * 300, scope="b").code is OutcomeCode.UNKNOWN_MODEL
    assert world.carried_out("a", Verb.LOAD, "a\x07", scope="b").code is OutcomeCode.UNKNOWN_MODEL


@pytest.mark.rows("LIF-11", "T1")
def test_loading_what_somebody_serves_is_done_at_once() -> None:
    """One replica is enough for requests; who has the file and no replica does not begin one."""
    world = World()
    world.start("a", "b")
    world.carried_out("a", Verb.UNLOAD, scope="node")

    assert world.carried_out("a", Verb.LOAD).is_done
    assert world.state("a") is EngineState.STOPPED


def cold(view: MeshView, lack: str = "") -> MeshView:
    """Return a view in which another node has the model on its disk, and nobody serves it."""
    known = MappingProxyType({TINY: ColdModel(model=TINY, nodes=(NodeId("b"),), lack=lack)})
    return replace(view, cold=known, replicas=MappingProxyType({}))


def served(view: MeshView, state: ServingState) -> MeshView:
    """Return a view in which another node serves the model, or is about to."""
    replica = Replica(node=NodeId("b"), name="b", served=ServedModel(model=TINY, digest="", state=state))
    return replace(view, cold=MappingProxyType({}), replicas=MappingProxyType({TINY: (replica,)}))


class Loader:
    """Orders of one node between which and the mesh a test stands."""

    def __init__(self) -> None:
        """Have the right to administer."""
        self.wanted: list[ModelId] = []
        around = Surroundings(
            carry_out=lambda _: [], want=self._want, reach=lambda _, __: None, is_connected=lambda _: False
        )
        core = MeshCore(CoreConfig(node=NodeId("a"), name="a"), 0.0, random.Random(1))
        self.view = replace(core.view, has_inventory=True, resources=a_machine())
        self.orders = RemoteOrders(NodeId("a"), 1, OrderBook(NodeId("a")), around)

    def _want(self, model: ModelId, _: float) -> list[Effect]:
        self.wanted.append(model)
        return []

    def load(self, view: MeshView, now_s: float = 0.0) -> list[Effect]:
        """Order the model to be loaded somewhere."""
        intent = Intent(verb=Verb.LOAD, model="tiny", request_id="r", scope="mesh")
        return self.orders.on_intent(intent, view, now_s)

    def look(self, view: MeshView, now_s: float) -> list[Outcome]:
        """Let time pass, or the mesh change; return the answers."""
        effects = self.orders.advance(view, now_s, is_leaving=False)
        return [effect.outcome for effect in effects if isinstance(effect, Answer)]


@pytest.mark.rows("LIF-2")
def test_loading_what_another_node_has_is_answered_when_that_one_serves_it() -> None:
    """Which node it is is nobody's order: a request would do the same. The mesh is reminded now and then."""
    loader = Loader()

    assert loader.load(cold(loader.view)) == []
    assert loader.look(cold(loader.view), ORDER_WANTED_INTERVAL_S) == []
    assert loader.wanted == [TINY, TINY]
    assert loader.look(served(loader.view, ServingState.LOADING), 2 * LOAD_WAIT_S) != []

    loader.load(cold(loader.view))
    assert loader.look(served(loader.view, ServingState.LOADING), LOAD_WAIT_S - 1) == []
    assert loader.look(served(loader.view, ServingState.LOADING), 2 * LOAD_WAIT_S - 2) == []
    (outcome,) = loader.look(served(loader.view, ServingState.READY), 2 * LOAD_WAIT_S - 1)
    assert outcome.is_done


def test_loading_what_nobody_can_load_says_what_is_missing() -> None:
    """In the words of those who looked."""
    loader = Loader()
    loader.load(cold(loader.view))

    (outcome,) = loader.look(cold(loader.view, lack="needs 9 GB, 3 GB are free"), 1.0)

    assert (outcome.code, outcome.message) == (OutcomeCode.NO_CAPACITY, "needs 9 GB, 3 GB are free")
    assert loader.orders.next_s() is None


def test_loading_here_goes_on_elsewhere_when_there_is_no_room() -> None:
    """The file is here, and on another node too."""
    loader = Loader()
    tiny = LocalModel(id=TINY, spec=a_spec("tiny"), on_disk=a_spec("tiny"), state=EngineState.STOPPED, wanted=False)
    said = an_announcement("b", models_on_disk=(DiskModel(model=TINY, digest="", size_bytes=1),))
    other = Member(announcement=said, state=MemberState.ALIVE, since_s=0.0)
    alone = replace(loader.view, local=MappingProxyType({TINY: tiny}), names=NameIndex([TINY]))
    view = replace(alone, members=MappingProxyType({**alone.members, NodeId("b"): other}))
    full = Answer(request_id="r", outcome=Outcome(code=OutcomeCode.NO_CAPACITY, message="full", model="tiny"))

    loader.load(alone)
    assert loader.orders.sorted_out([full], alone, 0.0) == [full]
    loader.load(view)
    assert loader.orders.sorted_out([full], view, 0.0) == []
    assert loader.wanted == [TINY]


@pytest.mark.rows("ADR-10")
def test_a_default_chosen_at_one_node_is_everybodys_but_for_a_nodes_own() -> None:
    """Last writer wins; an override stays where it was made."""
    world = World()
    world.start("a", "b", models=("tiny", "other"))

    assert world.carried_out("a", Verb.DEFAULT, "other").is_done
    world.sim.run(2)
    assert [node.core.view.default_model for node in world.sim.nodes.values()] == ["other", "other"]

    assert world.carried_out("b", Verb.DEFAULT, "tiny", scope="node").is_done
    assert world.carried_out("a", Verb.DEFAULT, "nonsense").code is OutcomeCode.UNKNOWN_MODEL
    world.sim.run(2)
    assert [node.core.view.default_model for node in world.sim.nodes.values()] == ["other", "tiny"]

    assert world.carried_out("a", Verb.DEFAULT, "", scope="b").is_done
    assert world.sim.nodes[NodeId("b")].core.view.default_model == "other"


def test_orders_the_default_and_marks_survive_a_restart() -> None:
    """Written down when they change, and only then."""
    world = World()
    world.start("a", models=("tiny", "other"))
    world.carried_out("a", Verb.UNLOAD, "tiny", hold=True)
    world.carried_out("a", Verb.UNLOAD, "other", hold=True, scope="node")
    world.carried_out("a", Verb.DEFAULT, "other")
    world.carried_out("a", Verb.DEFAULT, "tiny", scope="node")
    written = len(world.of("a", KeepOrders))

    world.sim.run(60)
    assert len(world.of("a", KeepOrders)) == written
    world.sim.crash("a")
    world.sim.restart("a")
    world.sim.run(10)

    view = world.sim.nodes[NodeId("a")].core.view
    assert {model: (local.held, local.state) for model, local in view.local.items()} == {
        "tiny": (True, EngineState.STOPPED), "other": (True, EngineState.STOPPED),
    }  # fmt: skip
    assert (view.default_model, view.default_choice.model if view.default_choice else None) == ("tiny", "other")


def test_whoever_names_a_model_at_the_start_again_has_changed_their_mind() -> None:
    """It was unloaded here and not held, and the node is started with its name once more: the order is spent."""
    world = World()
    world.start("a", "b")
    world.carried_out("a", Verb.UNLOAD)

    world.sim.crash("a")
    world.sim.restart("a")
    world.sim.run(10)

    assert world.state("a") is EngineState.READY
    assert not world.sim.nodes[NodeId("b")].core.view.local[TINY].held


def test_a_node_that_leaves_answers_whoever_waits() -> None:
    """Nobody waits for a node that is gone."""
    world = World()
    world.start("a", "b")
    world.sim.suspend("b")
    request = world.ask("a", Verb.UNLOAD, scope="b")

    world.sim.leave("a")
    world.sim.run(1)

    assert world.outcomes[request].code is OutcomeCode.LEAVING


@pytest.mark.rows("LIF-14")
def test_a_drop_everywhere_ends_replicas_and_lets_the_other_nodes_run() -> None:
    """The node that was asked goes last, if the model was all that it had."""
    world = World()
    world.start("a", "b")

    request = world.ask("a", Verb.DROP)
    world.sim.run(5)

    assert world.outcomes[request].is_done
    assert world.sim.nodes[NodeId("a")].exit_code == 0
    assert world.sim.nodes[NodeId("b")].is_up
    assert (world.state("b"), world.sim.nodes[NodeId("b")].core.view.local[TINY].dropped) == (EngineState.STOPPED, True)


def test_a_drop_of_what_nobody_serves_says_so() -> None:
    """As a drop at one node does."""
    world = World()
    world.start("a", "b")
    world.carried_out("a", Verb.UNLOAD)

    assert world.carried_out("a", Verb.DROP).code is OutcomeCode.NOT_SERVED


def test_another_name_of_the_same_file_goes_on() -> None:
    """Whoever orders something says which model, and requests go by name, too."""
    world = World()
    world.start("a")
    world.start("b", models=("alias=tiny",))

    assert world.carried_out("a", Verb.UNLOAD).is_done

    assert (world.state("a"), world.state("b", ModelId("alias"))) == (EngineState.STOPPED, EngineState.READY)
