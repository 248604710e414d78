import { expect, test } from "vitest";

import inAMesh from "../../tests/api/documents/in_a_mesh.json";
import type { StatusDocument } from "../src/api/contract";
import type { ModelRow } from "../src/state/rows";
import { actionsOf, fit, modelRows, rowNote, stateOf, whereabouts } from "../src/state/rows";
import { aDocument, aMeshModel, aModel } from "./documents";

const mesh: StatusDocument = inAMesh;
const row = (changes: Partial<ModelRow>): ModelRow => ({ id: "tiny", mesh: aMeshModel(), local: null, ...changes });
const words = (found: ModelRow) => actionsOf(found).map((action) => action.words);

// rows: CON-1
test("every model of the mesh and of this node is one row, warm ones first", () => {
  const rows = modelRows(mesh);

  expect(rows.map(({ id }) => id)).toEqual(["big", "tiny", "gone", "held"]);
  expect(rows.map((found) => stateOf(found).word)).toEqual(["warm", "ready", "dropped", "held"]);
  expect(rows.map((found) => whereabouts(found, mesh))).toEqual(["desk", "a", "–", "on the disk of a"]);
});

test("rows are found by a part of their name", () => {
  expect(modelRows(mesh, " TIN ").map(({ id }) => id)).toEqual(["tiny"]);
  expect(modelRows(mesh, "nothing")).toEqual([]);
});

test("what this node does outshines what others do, except where it does nothing", () => {
  expect(stateOf(row({ local: aModel({ phase: "loading" }) }))).toEqual({ word: "loading", tone: "busy" });
  expect(stateOf(row({ local: aModel({ phase: "unloaded" }) }))).toEqual({ word: "warm", tone: "good" });
  expect(stateOf(row({ mesh: aMeshModel({ warmth: "cold", held: true }) }))).toEqual({ word: "held", tone: "quiet" });
});

test("orders that cost somebody something are asked about first", () => {
  const actions = actionsOf(row({ local: aModel() }));

  expect(actions.map(({ change, question }) => [change, question !== ""])).toEqual([
    ["unload", true],
    ["hold", true],
    ["pin", false],
    ["drop", true],
  ]);
  expect(actionsOf(row({ mesh: aMeshModel({ warmth: "cold" }) }))[0]).toMatchObject({ change: "load", question: "" });
});

test("orders fit where the model is", () => {
  expect(words(row({}))).toEqual(["Unload", "Hold"]);
  expect(words(row({ local: aModel({ phase: "unloaded" }) }))).toEqual(["Unload", "Hold"]);
  expect(words(row({ local: aModel({ kind: "adopted" }) }))).toEqual(["Unload"]);
  expect(words(row({ mesh: aMeshModel({ held: true, warmth: "cold" }) }))).toEqual(["Load"]);
  expect(words(row({ mesh: null, local: aModel({ phase: "dropped", dropped: true }) }))).toEqual(["Load"]);
});

test("a model stays in memory, or stays no longer, by the same button", () => {
  expect(words(row({ local: aModel({ pinned: true }) }))).toEqual(["Unload", "Hold", "Unpin", "Drop"]);
  expect(words(row({ local: aModel() }))).toContain("Pin");
  expect(words(row({ local: aModel({ phase: "unloaded", pinned: true }) }))).not.toContain("Unpin");
});

test("a model that nobody can load says why", () => {
  const found = row({ mesh: aMeshModel({ warmth: "cold", lack: "needs 1.0 TB" }) });

  expect([fit(found), rowNote(found, 0)]).toEqual(["does not fit now", "needs 1.0 TB"]);
  expect([fit(row({})), fit(row({ mesh: aMeshModel({ warmth: "cold" }) }))]).toEqual(["runs", "fits"]);
});

test("many nodes are counted, not listed", () => {
  const nodes = Array.from({ length: 9 }, (_, at) => ({ id: `node-${at}`, phase: "ready" }));

  expect(whereabouts(row({ mesh: aMeshModel({ nodes }) }), aDocument())).toMatch(/ and 5 more$/);
});
