import { expect, test } from "vitest";

import inAMesh from "../../tests/api/documents/in_a_mesh.json";
import type { StatusDocument } from "../src/api/contract";
import { told } from "../src/state/happenings";
import { aMeshModel } from "./documents";

const mesh: StatusDocument = inAMesh;
const as = (name: string, state: string, why = ""): StatusDocument => ({
  ...mesh,
  members: mesh.members.map((member) => (member.name === name ? { ...member, state, why } : member)),
});

test("a first document is no news, and neither is the same again", () => {
  expect(told([], null, mesh, 1)).toEqual([]);
  expect(told([], mesh, mesh, 1)).toEqual([]);
});

test("a node's way through its states is told with the cause", () => {
  const doubted = told([], mesh, as("desk", "suspect", "no answer for 5 s"), 10);
  const died = told(doubted, as("desk", "suspect"), as("desk", "dead", "no answer; nobody else reached it"), 20);
  const back = told(died, as("desk", "dead"), mesh, 30);

  expect(back.map(({ what, tone }) => [what, tone])).toEqual([
    ["desk is back", "good"],
    ["desk is dead", "bad"],
    ["desk does not answer", "busy"],
  ]);
  expect(back[1]).toMatchObject({ atMs: 20, cause: "no answer; nobody else reached it" });
});

test("a node that nobody knew joined", () => {
  const before = { ...mesh, members: mesh.members.filter(({ name }) => name !== "desk") };

  expect(told([], before, mesh, 1).map(({ what }) => what)).toEqual(["desk joined"]);
});

test("a model that is divided, divided anew and whole again is told with its shares", () => {
  const withEpoch = (epoch: number | null): StatusDocument => ({
    ...mesh,
    members: mesh.members.map((member) => ({
      ...member,
      models: member.models.map((model) => ({ ...model, split: model.split && epoch !== null ? { ...model.split, epoch } : null })),
    })),
  });
  let found = told([], withEpoch(null), withEpoch(3), 1);
  found = told(found, withEpoch(3), withEpoch(3), 2);
  found = told(found, withEpoch(3), withEpoch(4), 3);
  found = told(found, withEpoch(4), withEpoch(null), 4);

  expect(found.map(({ what, cause }) => [what, cause])).toEqual([
    ["big is not divided any more", "by desk"],
    ["big is divided anew by desk", "a 8 layers, desk 24 layers"],
    ["big is divided by desk", "a 8 layers, desk 24 layers"],
  ]);
});

test("a model that becomes ready somewhere is told once, with the node's name", () => {
  const desk = mesh.members[1]?.id ?? "";
  const before = { ...mesh, mesh_models: [aMeshModel({ id: "m", nodes: [] })] };
  const after = { ...mesh, mesh_models: [aMeshModel({ id: "m", nodes: [{ id: desk, phase: "ready" }] })] };

  expect(told([], before, after, 1).map(({ what }) => what)).toEqual(["m is ready at desk"]);
  expect(told([], after, after, 1)).toEqual([]);
});

test("a model that goes with its node is told with the node's end", () => {
  const desk = mesh.members[1]?.id ?? "";
  const before = { ...mesh, mesh_models: [aMeshModel({ id: "m", nodes: [{ id: desk, phase: "ready" }] })] };

  const found = told([], before, { ...as("desk", "dead", "no answer"), mesh_models: [] }, 1);

  expect(found.map(({ what, cause }) => [what, cause])).toEqual([
    ["m is gone at desk", "no answer"],
    ["desk is dead", "no answer"],
  ]);
});

test("another node's document tells nothing, and the list does not grow for ever", () => {
  const other = { ...mesh, node: { ...mesh.node, id: "other" } };
  const many = Array.from({ length: 500 }, (_, atMs) => ({ atMs, tone: "good" as const, what: "x", cause: "" }));

  expect(told([], other, as("desk", "dead"), 1)).toEqual([]);
  expect(told(many, mesh, as("desk", "dead"), 1)).toHaveLength(500);
});
