import { expect, test } from "vitest";

import { factsOf, message } from "../src/api/chat";
import type { ChatFact } from "../src/api/chat";
import type { Conversation } from "../src/state/conversation";
import { converse, silence, turnsToSend } from "../src/state/conversation";

const asked = (text: string, from: Conversation = silence) => converse(from, { kind: "asked", text, model: "tiny" });
const heard = (talk: Conversation, fact: ChatFact, afterFirstMs = 0) =>
  converse(talk, { kind: "heard", fact, afterFirstMs, firstMs: 40 });
const answered = (question: string, text: string, from: Conversation = silence) =>
  converse(heard(asked(question, from), { kind: "text", text }), { kind: "finished" });

test("an answer grows piece by piece and names the model that gave it", () => {
  let talk = asked("Hi");
  talk = heard(talk, { kind: "model", model: "other" });
  talk = heard(talk, { kind: "text", text: "Hel" });
  talk = heard(talk, { kind: "text", text: "lo" }, 500);

  expect(talk.isAnswering).toBe(true);
  expect(talk.turns.at(-1)).toMatchObject({ content: "Hello", model: "other", tokens: 2, tokensPerS: 2 });
});

test("the node's own count of tokens wins over ours", () => {
  const talk = heard(answered("Hi", "Hello"), { kind: "usage", tokens: 41, tokensPerS: 98.5 });

  expect(talk.turns.at(-1)).toMatchObject({ tokens: 41, tokensPerS: 98.5 });
});

test("a stopped answer keeps what was said", () => {
  const talk = converse(heard(asked("Hi"), { kind: "text", text: "Hel" }), { kind: "stopped" });

  expect(talk.isAnswering).toBe(false);
  expect(talk.turns.at(-1)).toMatchObject({ content: "Hel", ended: "stopped" });
});

test("who answered, by which rule and how soon is kept with the answer", () => {
  let talk = heard(asked("Hi"), { kind: "route", node: "studio", reason: "least_loaded" });
  talk = heard(talk, { kind: "text", text: "Hello" }, 90);

  expect(talk.turns.at(-1)).toMatchObject({ node: "studio", routedBy: "least_loaded", firstMs: 40 });
});

test("an answer asked for again takes the place of the last", () => {
  const again = converse(answered("Hi", "Hello"), { kind: "again", model: "other" });

  expect(again.isAnswering).toBe(true);
  expect(again.turns.map((turn) => [turn.role, turn.content, turn.model])).toEqual([
    ["user", "Hi", ""],
    ["assistant", "", "other"],
  ]);
  expect(turnsToSend(again).map((turn) => turn.content)).toEqual(["Hi"]);
});

test("nothing is asked again of silence or in the middle of an answer", () => {
  const open = asked("Hi");

  expect(converse(silence, { kind: "again", model: "tiny" })).toBe(silence);
  expect(converse(open, { kind: "again", model: "tiny" })).toBe(open);
});

test("an answer in the middle asked for again forgets what followed", () => {
  const again = converse(answered("second", "two", answered("first", "one")), { kind: "again", at: 1, model: "tiny" });

  expect(again.turns.map(({ content }) => content)).toEqual(["first", ""]);
});

test("an edited question is asked in its new words, and what followed is forgotten", () => {
  const talk = answered("second", "two", answered("first", "one"));

  const edited = converse(talk, { kind: "edited", at: 0, text: "other", model: "tiny" });

  expect(edited.isAnswering).toBe(true);
  expect(edited.turns.map(({ content }) => content)).toEqual(["other", ""]);
  expect(converse(talk, { kind: "edited", at: 1, text: "x", model: "tiny" })).toBe(talk);
});

test("a picture is sent beside the words, and words alone as plain text", () => {
  const talk = converse(silence, { kind: "asked", text: "What is it?", images: ["data:image/jpeg;base64,AA"], model: "m" });

  const [sent] = turnsToSend(talk).map(message);

  expect(sent?.content).toEqual([
    { type: "image_url", image_url: { url: "data:image/jpeg;base64,AA" } },
    { type: "text", text: "What is it?" },
  ]);
  expect(message({ role: "user", content: "Hi", images: [] })).toEqual({ role: "user", content: "Hi" });
});

test("a question whose answer failed is not sent again with the next one", () => {
  const failed = converse(asked("first", answered("Hi", "Hello")), { kind: "failed", message: "host_lost" });

  const sent = turnsToSend(asked("second", failed));

  expect(sent.map((turn) => turn.content)).toEqual(["Hi", "Hello", "second"]);
});

test("a chunk of the engine becomes facts", () => {
  const chunk = {
    model: "tiny",
    choices: [{ delta: { content: "x", reasoning_content: "hm" }, finish_reason: "length" }],
    timings: { predicted_n: 7, predicted_per_second: 12.5 },
  };

  expect(factsOf(chunk)).toEqual([
    { kind: "model", model: "tiny" },
    { kind: "thought", text: "hm" },
    { kind: "text", text: "x" },
    { kind: "cut" },
    { kind: "usage", tokens: 7, tokensPerS: 12.5 },
  ]);
});

test("an error inside a stream ends the answer with its reason", () => {
  const [fact] = factsOf({ error: { message: "the engine ended" } });

  expect(fact).toEqual({ kind: "failed", message: "the engine ended" });
});
