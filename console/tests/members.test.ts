import { expect, test } from "vitest";

import inAMesh from "../../tests/api/documents/in_a_mesh.json";
import serving from "../../tests/api/documents/serving.json";
import type { MemberStatus, StatusDocument } from "../src/api/contract";
import { milliseconds } from "../src/state/format";
import { hardware, meshMemory, meshTitle, memberNote, memberTone, membersInOrder, memoryOf, nodeName, remedy, servedModels, serves } from "../src/state/members";

const mesh: StatusDocument = inAMesh;

function memberCalled(name: string): MemberStatus {
  const found = mesh.members.find((member) => member.name === name);
  if (!found) throw new Error(`no member ${name}`);
  return found;
}

test("a member's note says what matters most", () => {
  const notes = ["a", "desk", "phone", "shed", "attic"].map((name) => memberNote(memberCalled(name), mesh, 5));

  expect(notes).toEqual([
    "",
    "connected",
    "told of by desk",
    "no answer for 12 s · for 15 s",
    "no answer; desk does not reach it either · for 15 s",
  ]);
});

test("a state has its tone, and one that this console does not know is quiet", () => {
  const tones = ["alive", "suspect", "dead", "left", "dreaming"].map((state) => memberTone({ ...memberCalled("desk"), state }));

  expect(tones).toEqual(["good", "busy", "quiet", "quiet", "quiet"]);
});

test("a member that nobody here knows the teller of is told of by an id", () => {
  const member = { ...memberCalled("phone"), vouched_by: "x".repeat(52) };

  expect(memberNote(member, mesh)).toBe("told of by xxxxxxxx");
});

test("the mesh is named, counted, and its missing nodes too", () => {
  expect(meshTitle(mesh)).toBe("Mesh home: 3 nodes, 2 not reached");
  expect(meshTitle(serving)).toBe("1 node");
  expect(meshTitle({ ...mesh, mesh: mesh.mesh && { ...mesh.mesh, name: "" } })).toContain("Mesh mmmmmmmm:");
});

test("round trips are short or exact", () => {
  expect([0.21, 2.1, 48.7].map(milliseconds)).toEqual(["0.2 ms", "2.1 ms", "49 ms"]);
});

test("a member that is not reached has a remedy, and one that is has none", () => {
  const remedies = ["a", "desk", "shed", "attic"].map((name) => remedy(memberCalled(name)));

  expect(remedies.map((text) => text !== "")).toEqual([false, false, true, true]);
  expect(remedy({ ...memberCalled("attic"), why: "connection refused" })).toContain("start it there");
  expect(remedy({ ...memberCalled("attic"), state: "left" })).toContain("left on purpose");
  expect(remedy({ ...memberCalled("attic"), why: "no way from here; desk2222 reaches it" })).toContain("firewall");
});

test("nodes that want attention stand before those that do not", () => {
  expect(membersInOrder(mesh).map(({ name }) => name)).toEqual(["a", "shed", "attic", "desk", "phone"]);
});

// rows: CON-4
test("the mesh's memory leaves out clients and the dead", () => {
  const sum = meshMemory(mesh);

  expect(sum).toMatchObject({ gpus: 2, nodes: 2, ram_bytes: 0 });
  expect(sum.gpu_bytes).toBe(memberCalled("a").memory.gpu_total_bytes + memberCalled("desk").memory.gpu_total_bytes);
  const client = { ...memberCalled("desk"), role: "client" };
  expect(meshMemory({ ...mesh, members: [client] })).toEqual({ gpu_bytes: 0, gpu_free_bytes: 0, gpus: 0, ram_bytes: 0, nodes: 0 });
});

test("a node's memory is its GPUs' where it has some", () => {
  expect(memoryOf(memberCalled("a")).label).toBe("VRAM");
  expect(memoryOf(memberCalled("shed"))).toEqual({ label: "Memory", used_bytes: 0, total_bytes: 17179869184 });
  expect(hardware(memberCalled("a"))).toBe("GPU · 4 cores");
  expect(hardware(memberCalled("phone"))).toBe("client: lends nothing");
});

// rows: CON-3, CON-5
test("a model's hosts are those that serve it and live", () => {
  expect(servedModels(mesh)).toEqual(["big", "tiny"]);
  expect(mesh.members.filter((member) => serves(member, "big")).map(({ name }) => name)).toEqual(["desk"]);
  expect(serves({ ...memberCalled("desk"), state: "dead" }, "big")).toBe(false);
  expect(serves(memberCalled("desk"), "")).toBe(false);
});

test("a node is called by its name, and by the beginning of its id where nobody knows it", () => {
  expect(nodeName(mesh, memberCalled("desk").id)).toBe("desk");
  expect([nodeName(mesh, "z".repeat(52)), nodeName(null, "tiny")]).toEqual(["zzzzzzzz", "tiny"]);
});
