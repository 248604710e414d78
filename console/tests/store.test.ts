import { expect, test } from "vitest";

import after from "../../tests/api/documents/changes/after.json";
import before from "../../tests/api/documents/changes/before.json";
import changesDocument from "../../tests/api/documents/changes/changes.json";
import type { StatusChanges, StatusDocument } from "../src/api/contract";

import { staleForS } from "../src/state/selectors";
import { reduce, unknownNode } from "../src/state/store";
import { aDocument } from "./documents";

const changes: StatusChanges = changesDocument;

// A document so many seconds later, if nothing is said meanwhile.
function aged(document: StatusDocument, elapsed_s: number): unknown {
  const later = (key: string, value: unknown) => {
    if (typeof value !== "number") return value;
    if (["uptime_s", "for_s", "heard_s", "ready_for_s"].includes(key)) return Math.max(0, Math.round((value + elapsed_s) * 10) / 10);
    return key === "retry_in_s" ? Math.max(0, value - elapsed_s) : value;
  };
  return JSON.parse(JSON.stringify(document, later));
}

test("the node's changes make the node's next document, with its durations", () => {
  const live = reduce(unknownNode, { kind: "document", document: before, atMs: 1000 });

  const later = reduce(live, { kind: "changes", changes, atMs: 31_000 });

  expect(later.documentAtMs).toBe(1000);
  expect(later.status && aged(later.status, 30)).toEqual(aged(after, 0));
});

test("what did not change stays the same object, so that nothing of it is drawn again", () => {
  const live = reduce(unknownNode, { kind: "document", document: before, atMs: 1000 });

  const { status } = reduce(live, { kind: "changes", changes, atMs: 31_000 });

  const same = (id: string) => status?.models.find((model) => model.id === id) === live.status?.models.find((model) => model.id === id);
  expect(same("tiny")).toBe(true);
  const nothing = { facts: {}, entries: { members: [], models: [], mesh_models: [] }, order: { members: null, models: null, mesh_models: null } };
  expect(reduce(live, { kind: "changes", changes: nothing, atMs: 2000 }).status?.models).toBe(live.status?.models);
});

test("changes bring a lost node back, and mean nothing without a document", () => {
  const lost = reduce(reduce(unknownNode, { kind: "document", document: before, atMs: 1000 }), { kind: "lost", reason: "x" });

  expect(reduce(lost, { kind: "changes", changes, atMs: 2000 })).toMatchObject({ connection: "live", reason: "" });
  expect(reduce(unknownNode, { kind: "changes", changes, atMs: 2000 })).toBe(unknownNode);
});


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
