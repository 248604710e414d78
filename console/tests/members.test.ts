import { expect, test } from "vitest";

import inAMesh from "../../tests/api/documents/in_a_mesh.json";
import serving from "../../tests/api/documents/serving.json";
import type { MemberStatus, StatusDocument } from "../src/api/contract";
import { milliseconds } from "../src/state/format";
import { meshTitle, memberNote, memberTone } from "../src/state/members";

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

  expect(tones).toEqual(["good", "busy", "bad", "quiet", "quiet"]);
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
