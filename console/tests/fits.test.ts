import { expect, test } from "vitest";

import inAMesh from "../../tests/api/documents/in_a_mesh.json";
import type { MemberStatus, StatusDocument } from "../src/api/contract";
import { fitsOf } from "../src/state/fits";
import { aMeshModel } from "./documents";

const mesh: StatusDocument = inAMesh;
const GIB = 2 ** 30;

function aNode(id: string, total: number, free: number, changes: Partial<MemberStatus> = {}): MemberStatus {
  const [first] = mesh.members;
  if (!first) throw new Error("the document has no member");
  const memory = { total_bytes: total * GIB, free_bytes: free * GIB, gpu_total_bytes: 0, gpu_free_bytes: 0, gpus: 0 };
  return { ...first, id, name: id, is_me: false, state: "alive", role: "host", models: [], memory, ...changes };
}

const members = [
  aNode("small", 4, 4),
  aNode("busy", 32, 4),
  aNode("roomy", 32, 30),
  aNode("phone", 64, 64, { role: "client" }),
  aNode("gone", 64, 64, { state: "dead" }),
  aNode("unmeasured", 0, 0),
];
const known = { ...mesh, members };
const row = (nodes: { id: string; phase: string }[]) => ({
  id: "m",
  mesh: aMeshModel({ id: "m", size_bytes: 8 * GIB, nodes }),
  local: null,
});

test("each node that lends memory says whether the model fits there", () => {
  expect(fitsOf(row([]), known).map(({ name, words }) => `${name}: ${words}`)).toEqual([
    "small: too large",
    "busy: fits when others are unloaded",
    "roomy: fits",
    "unmeasured: not known",
  ]);
});

test("only a node that has the file and the room can be told to load it, and it comes first", () => {
  const fits = fitsOf(row([{ id: "roomy", phase: "unloaded" }, { id: "small", phase: "unloaded" }, { id: "busy", phase: "ready" }]), known);

  expect(fits.slice(0, 3).map(({ name, canLoad, words }) => [name, canLoad, words])).toEqual([
    ["small", false, "too large"],
    ["busy", false, "runs"],
    ["roomy", true, "fits"],
  ]);
});
