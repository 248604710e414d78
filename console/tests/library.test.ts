import { expect, test } from "vitest";

import type { Conversation } from "../src/state/conversation";
import { converse, silence } from "../src/state/conversation";
import { asMarkdown, begun, emptyLibrary, forgotten, opened, restored, smaller, titleOf } from "../src/state/library";

const PICTURE = "data:image/jpeg;base64,AA";

function aTalk(id: string, question = id): Conversation {
  let talk = converse({ ...silence, id }, { kind: "asked", text: question, images: [PICTURE], model: "tiny" });
  talk = converse(talk, { kind: "heard", fact: { kind: "text", text: "Hello" }, afterFirstMs: 0, firstMs: 40 });
  return converse(talk, { kind: "finished" });
}

const ids = (library: { open: Conversation; others: Conversation[] }) => [library.open.id, ...library.others.map(({ id }) => id)];

test("a new conversation puts the open one away, and an empty one is never kept", () => {
  const library = begun({ open: aTalk("a"), others: [aTalk("b")] });

  expect(ids(library)).toEqual(["", "a", "b"]);
  expect(begun(library)).toBe(library);
});

test("an older conversation is taken out and the open one put away", () => {
  const library = { open: aTalk("a"), others: [aTalk("b"), aTalk("c")] };

  expect(ids(opened(library, "c"))).toEqual(["c", "a", "b"]);
  expect(opened(library, "gone")).toBe(library);
});

test("a forgotten conversation makes room for the newest of the others", () => {
  expect(ids(forgotten({ open: aTalk("a"), others: [aTalk("b")] }))).toEqual(["b"]);
  expect(forgotten({ open: aTalk("a"), others: [] })).toEqual(emptyLibrary);
});

test("everything survives a reload", () => {
  const library = { open: aTalk("a"), others: [aTalk("b")] };

  expect(restored(JSON.stringify(library))).toEqual(library);
});

test("an answer that a reload cut off says so", () => {
  const open = converse(silence, { kind: "asked", text: "Hi", model: "tiny" });

  const { turns, isAnswering } = restored(JSON.stringify({ open, others: [] })).open;

  expect(isAnswering).toBe(false);
  expect(turns.at(-1)).toMatchObject({ ended: "failed" });
});

test("the single conversation of an older page is taken over", () => {
  const old = { turns: [{ role: "user", content: "Hi", thought: "", ended: "" }], isAnswering: false };

  expect(restored(JSON.stringify(old)).open.turns[0]).toMatchObject({ content: "Hi", node: "", firstMs: null, images: [] });
});

test.each([
  "", "null", "{}", "[]", '{"turns":5}', '{"turns":[null]}', '{"open":{"turns":[{"content":5}]}}', '{"others":[5]}', "{", null,
])("storage that holds %j is no conversation", (stored) => {
  expect(restored(stored)).toEqual(emptyLibrary);
});

test("a browser that keeps little keeps the words before the pictures, and the newest before the rest", () => {
  const steps = [...smaller({ open: aTalk("a"), others: [aTalk("b"), aTalk("c"), aTalk("d")] })];

  const pictures = steps.map(({ open, others }) => [open, ...others].filter(({ turns }) => turns[0]?.images.length).length);
  expect(pictures).toEqual([1, 0, 0, 0]);
  expect(steps.map((step) => ids(step).join(""))).toEqual(["abcd", "abcd", "ab", "a"]);
});

test("a conversation is called by its first question, in one line", () => {
  expect(titleOf(aTalk("a", "two\n lines"))).toBe("two lines");
  expect(titleOf(aTalk("a", "x".repeat(90)))).toHaveLength(48);
  expect([titleOf(silence), titleOf(aTalk("a", " "))]).toEqual(["New conversation", "A picture"]);
});

test("an exported conversation says who answered", () => {
  expect(asMarkdown(aTalk("a", "Hi"))).toBe("# Hi\n\n## Question\n\nHi\n\n(1 pictures)\n\n## Answer\n\nHello\n\n*tiny*\n");
});
