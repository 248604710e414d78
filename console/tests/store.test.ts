import { expect, test } from "vitest";

import { staleForS } from "../src/state/selectors";
import { reduce, unknownNode } from "../src/state/store";
import { aDocument } from "./documents";

test("a document makes the node live", () => {
  const state = reduce(unknownNode, { kind: "document", document: aDocument(), atMs: 1000 });

  expect(state.connection).toBe("live");
  expect(state.status?.node.name).toBe("workbench");
  expect(staleForS(state, 60_000)).toBeNull();
});

test("a lost node stays on the screen with the age of its data", () => {
  const live = reduce(unknownNode, { kind: "document", document: aDocument(), atMs: 1000 });

  const lost = reduce(reduce(live, { kind: "alive", atMs: 3000 }), { kind: "lost", reason: "silence" });

  expect(lost.status).toBe(live.status);
  expect(staleForS(lost, 15_000)).toBe(12);
});

test("a node that was never there has no age", () => {
  const lost = reduce(unknownNode, { kind: "lost", reason: "the node does not answer" });

  expect(lost.connection).toBe("lost");
  expect(staleForS(lost, 15_000)).toBeNull();
});

test("a refused key is not a lost node, and another try starts over", () => {
  const refused = reduce(unknownNode, { kind: "refused", reason: "no API key" });

  expect(refused.connection).toBe("refused");
  expect(reduce(refused, { kind: "retried" }).connection).toBe("connecting");
});

test("a document after a loss makes the node live again", () => {
  const lost = reduce(unknownNode, { kind: "lost", reason: "silence" });

  const back = reduce(lost, { kind: "document", document: aDocument(), atMs: 5000 });

  expect(back).toMatchObject({ connection: "live", reason: "", aliveAtMs: 5000 });
});
