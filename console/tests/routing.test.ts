// The routing documents that tests/api writes, and what the console makes of them.

import { expect, test } from "vitest";

import configDocument from "../../tests/api/documents/routing/config.json";
import explainDocument from "../../tests/api/documents/routing/explain.json";
import statsDocument from "../../tests/api/documents/routing/stats.json";
import type { ExplainDocument, RoutingConfig, RoutingStats } from "../src/api/routing";
import { last, outcomeOf, requestsOf, traceOf, usageWords } from "../src/state/decisions";
import { nothing, polled } from "../src/state/polled";
import type { Polled } from "../src/state/polled";
import { changesOf, fieldsOf } from "../src/state/routing-form";

const config: RoutingConfig = configDocument;
const stats: RoutingStats = statsDocument;
const explained: ExplainDocument = explainDocument;
const texts = Object.fromEntries(fieldsOf(config).map(({ key, text }) => [key, text]));

test("every key of the configuration is a field of its kind", () => {
  const kinds = Object.fromEntries(fieldsOf(config).map(({ key, kind }) => [key, kind]));

  expect(kinds).toMatchObject({
    strategy: "choice",
    enable_health_checks: "truth",
    max_retries: "number",
    ab_test_model_a: "text",
    weights: "json",
  });
  expect(kinds).not.toHaveProperty("version");
});

test("only what was changed is told, and an emptied field brings the default back", () => {
  const changed = { ...texts, strategy: "random", max_retries: " 5 ", weights: '{"a": 2}', max_load_threshold: "" };

  expect(changesOf(config, texts)).toEqual({});
  expect(changesOf(config, changed)).toEqual({ strategy: "random", max_retries: 5, weights: { a: 2 }, max_load_threshold: null });
  expect(changesOf(config, { enable_health_checks: "false" })).toEqual({ enable_health_checks: false });
});

test.each([
  [{ max_retries: "many" }, "max_retries has to be a number"],
  [{ weights: "{" }, "weights has to be JSON"],
])("%j is refused with its name", (wrong, message) => {
  expect(() => changesOf(config, { ...texts, ...wrong })).toThrow(message);
});

test("a strategy that this console does not know can stay", () => {
  const [field] = fieldsOf({ scope: "mesh", version: 1, strategy: "by_the_moon" });

  expect(field?.choices).toContain("by_the_moon");
});

test("a decision says what came of it", () => {
  const [decision] = explained.decisions;
  if (!decision) throw new Error("the document has no decision");

  expect(outcomeOf(decision)).toEqual({ word: "open", tone: "busy" });
  expect(outcomeOf({ ...decision, ok: true })).toEqual({ word: "answered", tone: "good" });
  expect(outcomeOf({ ...decision, ok: false })).toEqual({ word: "failed", tone: "bad" });
  expect(stats.total_routes).toBe(1);
});

test("decisions about one request are one row, in the order in which they were made", () => {
  const [decision] = explained.decisions;
  if (!decision) throw new Error("the document has no decision");
  const model = { ...decision, model_id: "", picked: "tiny" };
  const name = (node: string) => node.toUpperCase();

  const [asked, ...more] = requestsOf([decision, model], "", name);

  expect(more).toEqual([]);
  expect(asked && last(asked)).toBe(decision);
  expect(asked && traceOf(asked, name).map(({ what }) => what)).toEqual([
    "model tiny, by least_loaded",
    "ATTIC of 2, by least_loaded",
  ]);
  expect(requestsOf([decision], "attic", name)).toHaveLength(1);
  expect(requestsOf([decision], "elsewhere", name)).toHaveLength(0);
});

test("a trace tells every attempt, and why it came to nothing", () => {
  const [decision] = explained.decisions;
  if (!decision) throw new Error("the document has no decision");
  const attempts = [
    { candidate: "attic", after_s: 0.001, setback: "lost" },
    { candidate: "studio", after_s: 0.2, setback: null },
  ];
  const told = { ...decision, attempts, went: "studio", ok: true, first_byte_s: 0.25 };

  expect(traceOf({ id: "r1", decisions: [told] }, (node) => node).map(({ at, what }) => `${at} ${what}`)).toEqual([
    "0 ms attic of 2, by least_loaded",
    "1 ms attic was lost before an answer",
    "200 ms sent to studio",
    "250 ms first byte",
    " answered by studio",
  ]);
});

test("an answer says how fast it was and how much of its prompt was cached", () => {
  const [decision] = explained.decisions;
  if (!decision) throw new Error("the document has no decision");
  const usage = { prompt_tokens: 1200, cached_tokens: 1024, completion_tokens: 40, tokens_per_s: 31.25 };

  const words = "31.3 tokens/s · 40 tokens · 1,024 of 1,200 prompt tokens cached";
  expect(usageWords({ ...decision, usage })).toBe(words);
  expect(usageWords({ ...decision, usage: { ...usage, cached_tokens: 0, tokens_per_s: null, completion_tokens: 0 } })).toBe(
    "0 of 1,200 prompt tokens cached",
  );
  expect(usageWords({ ...decision, usage: null })).toBe("");
  const ended = { ...decision, ok: true, went: "studio", usage };
  expect(traceOf({ id: "r1", decisions: [ended] }, (node) => node).at(-1)?.what).toBe(`answered by studio: ${words}`);
});

test("what was good stays on the screen when the next try fails", () => {
  const good: Polled<number> = polled<number>(nothing, { kind: "came", value: 7, atMs: 5 });

  expect(polled(good, { kind: "failed", problem: "the node does not answer" })).toEqual({
    value: 7,
    atMs: 5,
    problem: "the node does not answer",
  });
  expect(polled(good, { kind: "came", value: 8, atMs: 9 })).toEqual({ value: 8, atMs: 9, problem: "" });
});
