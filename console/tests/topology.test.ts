import { expect, test } from "vitest";

import inAMesh from "../../tests/api/documents/in_a_mesh.json";
import type { StatusDocument } from "../src/api/contract";
import type { PlannedSplit } from "../src/api/routing";
import { splitOf } from "../src/state/splits";
import { HEIGHT, picture, WIDTH } from "../src/state/topology";

const mesh: StatusDocument = inAMesh;

test("every node has a place in the picture, this one in the middle", () => {
  const { spots } = picture(mesh, "big", null);

  expect(spots).toHaveLength(mesh.members.length);
  expect(spots[0]).toMatchObject({ isMe: true, x: WIDTH / 2, y: HEIGHT / 2 });
  expect(new Set(spots.map(({ x, y }) => `${x} ${y}`)).size).toBe(spots.length);
  expect(spots.filter(({ isHost }) => isHost).map(({ name }) => name)).toEqual(["desk"]);
});

test("links go to who is connected, dashed ones to who is told of, none to the dead", () => {
  const { lines } = picture(mesh, "", null);

  const seen = lines.map(({ kind, from, to }) => `${kind} ${from.name} ${to.name}`);
  expect(seen).toContain(`link ${mesh.node.name} desk`);
  expect(seen).toContain("told desk phone");
  expect(seen.join()).not.toContain("attic");
});

test("a running split shows its shares and the ways between them", () => {
  const split = splitOf(mesh, "big", null);

  expect(split?.isRunning).toBe(true);
  expect(split?.shares.map(({ name, part, isHost }) => [name, part, isHost])).toEqual([
    [mesh.node.name, 0.25, false],
    ["desk", 0.75, true],
  ]);
  expect(picture(mesh, "big", split).lines.filter(({ kind }) => kind === "split")).toHaveLength(1);
});

test("a split that only would be says so in the node's words", () => {
  const planned: PlannedSplit = {
    runs: false, possible: true, message: "would be split", host: "x",
    shares: [{ candidate: "x", node: "ex", is_host: true, layers: 4, memory_bytes: 1 }],
  };

  expect(splitOf(mesh, "huge", planned)).toMatchObject({ isRunning: false, words: "would be split", shares: [{ name: "ex", part: 1 }] });
  expect([splitOf(mesh, "huge", null), splitOf(mesh, "", planned)]).toEqual([null, null]);
});
